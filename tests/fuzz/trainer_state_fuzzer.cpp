// The trainer's state in a checkpoint: whatever is accepted can be gone on from, and says the same after a round trip.
#include "src/train/trainer_state.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view bytes) {
    const optp::TrainerState state = optp::trainer_state_from_json(std::string(bytes), "checkpoint");
    optp::expect(state.step >= 0 && state.tokens >= 0 && state.skipped_steps >= 0 && state.skipped_in_a_row >= 0);
    const std::string text = optp::to_json(state);
    const optp::TrainerState again = optp::trainer_state_from_json(text, "checkpoint");
    optp::expect(optp::to_json(again) == text);
    optp::check_identity(state.identity, again.identity, "checkpoint");
  });
}

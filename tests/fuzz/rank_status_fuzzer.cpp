// What a rank shows to the others: only what text() writes is taken for a status, and it can be told.
#include "parallel/rank_status.h"
#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  return optp::fuzz(data, size, [](std::string_view bytes) {
    const optp::RankStatus status = optp::RankStatus::parse(std::string(bytes));
    if (status.beats == 0) return;
    optp::expect(status.text() == bytes);
    using Phase = optp::RankStatus::Phase;
    optp::expect(status.phase == Phase::running || status.phase == Phase::failed || status.phase == Phase::left);
    optp::expect(status.doing().find('\n') == std::string::npos);
  });
}

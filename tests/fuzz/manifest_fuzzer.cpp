// checkpoint.json, and what a run that is resumed takes out of it. Few inputs would have the right checksum, so each is
// also read with that behind it.
#include <charconv>

#include "modules/opt_config.h"
#include "src/checkpoint/checkpoint_manifest.h"
#include "src/checkpoint/crc64.h"
#include "src/train/model_identity.h"
#include "src/train/trainer_state.h"
#include "tests/fuzz/files.h"
#include "tests/fuzz/fuzz.h"

namespace optp {
namespace {

void check_claims(const CheckpointManifest& manifest) {
  expect(manifest.tp >= 1 && manifest.dp >= 1);
  const auto parameters = manifest.files_of(CheckpointPart::parameters);
  const auto optimizer_state = manifest.files_of(CheckpointPart::optimizer_state);
  expect(static_cast<int64_t>(parameters.size()) == manifest.tp);
  expect(optimizer_state.empty() || optimizer_state.size() == parameters.size());
  for (const auto& files : {parameters, optimizer_state}) {
    for (size_t rank = 0; rank < files.size(); ++rank) {
      const std::string& name = files[rank].name;
      expect(files[rank].rank == static_cast<int64_t>(rank) && files[rank].size > 0);
      expect(!name.empty() && name != "." && name != ".." && name.find_first_of(std::string("/\0", 2)) == name.npos);
    }
  }
}

void expect_same(const CheckpointManifest& a, const CheckpointManifest& b) {
  expect(a.tp == b.tp && a.dp == b.dp && a.model_config == b.model_config && a.trainer_state == b.trainer_state);
  expect(a.files.size() == b.files.size());
  for (size_t i = 0; i < a.files.size(); ++i) {
    expect(a.files[i].name == b.files[i].name && a.files[i].part == b.files[i].part);
    expect(a.files[i].rank == b.files[i].rank && a.files[i].size == b.files[i].size);
    expect(a.files[i].crc64 == b.files[i].crc64);
  }
}

void check_content(const CheckpointManifest& manifest) {
  const std::string own = OptConfig::preset("opt-tiny").to_json();
  accepts([&] { check_model(own, manifest.model_config, "checkpoint"); });
  accepts([&] { OptConfig::from_json(manifest.model_config, "checkpoint"); });
  accepts([&] { trainer_state_from_json(manifest.trainer_state, "checkpoint"); });
}

void check_manifest(const FuzzFolder& folder, std::string text) {
  folder.write(kCheckpointManifestName, text);
  const CheckpointManifest manifest = read_checkpoint_manifest(folder.path());
  check_claims(manifest);
  expect(!has_all_checkpoint_files(folder.path()));
  check_content(manifest);

  // One altered bit is noticed, wherever it is.
  const size_t bit = crc64(text) % (8 * text.size());
  text[bit / 8] = static_cast<char>(text[bit / 8] ^ 1 << bit % 8);
  folder.write(kCheckpointManifestName, text);
  expect(!accepts([&] { read_checkpoint_manifest(folder.path()); }));

  folder.write(kCheckpointManifestName, to_json(manifest));
  expect_same(read_checkpoint_manifest(folder.path()), manifest);
}

// The text with the right checksum at its end, in place of one that stands there.
std::string with_checksum(std::string_view text) {
  const size_t old = text.rfind(",\n  \"crc64\": \"");
  text = text.substr(0, old);
  return std::string(text) + ",\n  \"crc64\": \"" + crc64_text(crc64(text)) + "\"\n}\n";
}

}  // namespace
}  // namespace optp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const optp::FuzzFolder folder;
  return optp::fuzz(data, size, [](std::string_view bytes) {
    optp::accepts([&] { optp::check_manifest(folder, std::string(bytes)); });
    optp::check_manifest(folder, optp::with_checksum(bytes));
  });
}

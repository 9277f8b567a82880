// Checkpoints that lie: every case is a whole checkpoint damaged by hand, and a piece of the one sentence it must give.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "src/checkpoint/checkpoint_manifest.h"
#include "src/checkpoint/crc64.h"
#include "src/checkpoint/training_checkpoint.h"
#include "tests/checkpoint/checkpoint_files.h"
#include "tests/checkpoint/sharded_content.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"

namespace optp {
namespace {

namespace fs = std::filesystem;
using ::testing::IsSubstring;

const std::string kManifest = "checkpoint.json";
const std::string kFirst = "parameters-00000-of-00002.safetensors";
const std::string kSecond = "parameters-00001-of-00002.safetensors";
const std::string kState = "optimizer_state-00001-of-00002.safetensors";

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  const size_t place = text.find(from);
  EXPECT_NE(place, std::string::npos) << from;
  return text.replace(place, from.size(), to);
}

void edit(const fs::path& path, const std::string& from, const std::string& to) {
  write_bytes(path, replaced(read_bytes(path), from, to));
}

void flip_bit(const fs::path& path, size_t byte, int bit) {
  std::string bytes = read_bytes(path);
  bytes.at(byte) = static_cast<char>(bytes.at(byte) ^ (1 << bit));
  write_bytes(path, bytes);
}

// The manifest `text` with the checksum that it would have, had optp written it so.
std::string sealed(const std::string& text) {
  const std::string body = text.substr(0, text.rfind(",\n  \"crc64\": "));
  return body + ",\n  \"crc64\": \"" + crc64_text(crc64(body)) + "\"\n}\n";
}

void edit_manifest(const fs::path& folder, const std::string& from, const std::string& to) {
  write_bytes(folder / kManifest, sealed(replaced(read_bytes(folder / kManifest), from, to)));
}

// Changes a file and what the manifest says of it: what is left is the content itself.
void edit_file(const fs::path& folder, const std::string& name, const std::string& from, const std::string& to) {
  const std::string before = read_bytes(folder / name);
  std::string after = replaced(before, from, to);
  uint64_t length = 0;
  std::memcpy(&length, after.data(), sizeof(length));
  length += to.size() - from.size();
  std::memcpy(after.data(), &length, sizeof(length));
  write_bytes(folder / name, after);
  std::string manifest = replaced(read_bytes(folder / kManifest), crc64_text(crc64(before)), crc64_text(crc64(after)));
  const size_t entry = manifest.find(name);
  const std::string old_size = "\"size\": " + std::to_string(before.size());
  manifest.replace(manifest.find(old_size, entry), old_size.size(), "\"size\": " + std::to_string(after.size()));
  write_bytes(folder / kManifest, sealed(manifest));
}

// Two checkpoints of tp 2, with the steps 1 and 2; the tests damage the second.
class CheckpointDamage : public ::testing::Test {
 protected:
  CheckpointDamage() {
    testing::run_ranks(2, [&](const Mesh& mesh) {
      for (const int64_t step : {1, 2}) {
        write_training_checkpoint(good_ / checkpoint_name(step), testing::content_of(step, mesh), mesh);
      }
    });
  }

  // A copy of both to damage.
  struct Copy {
    TemporaryFolder folder;
    fs::path newest() const { return folder / "step-00000002"; }
    fs::path older() const { return folder / "step-00000001"; }
  };
  void copy_into(const Copy& copy) const { fs::copy(good_.path(), copy.folder.path(), fs::copy_options::recursive); }

  // The error of loading all of it.
  static std::string error_of(const fs::path& folder) {
    return value_error([&] {
      const TrainingCheckpoint checkpoint(folder);
      checkpoint.load_parameters(testing::cut_empty(testing::whole_parameters(2), 0, 1));
      checkpoint.load_optimizer_state(testing::cut_empty(testing::whole_optimizer_state(2), 0, 1));
    });
  }

  // `damage` gives an error that names `file`, says `message` and offers the older checkpoint.
  void expect(const std::string& label, const std::function<void(const fs::path&)>& damage, const std::string& file,
              const std::string& message) const {
    SCOPED_TRACE(label);
    const Copy copy;
    copy_into(copy);
    damage(copy.newest());
    const std::string error = error_of(copy.newest());
    EXPECT_PRED_FORMAT2(IsSubstring, (file.empty() ? copy.newest() : copy.newest() / file).string(), error);
    EXPECT_PRED_FORMAT2(IsSubstring, message, error);
    EXPECT_PRED_FORMAT2(IsSubstring, "; the newest older checkpoint that is whole is " + copy.older().string() + ".",
                        error);
    EXPECT_LT(error.size(), 2 * copy.newest().string().size() + 500);
  }

  TemporaryFolder good_;
};

TEST_F(CheckpointDamage, OfTheManifestIsOneClearError) {
  const auto manifest = [&](const std::string& label, const std::string& from, const std::string& to,
                            const std::string& message) {
    expect(label, [&](const fs::path& folder) { edit_manifest(folder, from, to); }, kManifest, message);
  };
  const auto text = [&](const std::string& label, const std::string& bytes, const std::string& message) {
    expect(label, [&](const fs::path& folder) { write_bytes(folder / kManifest, bytes); }, kManifest, message);
  };
  expect("missing", [](const fs::path& folder) { fs::remove(folder / kManifest); }, "", "it has no checkpoint.json");
  text("empty", "", "the file is empty");
  text("cut off", read_bytes(good_ / "step-00000002/checkpoint.json").substr(0, 300), "not valid JSON at byte");
  text("no JSON", "PK\x03\x04", "not valid JSON at byte 1");
  text("not an object", "[1]", "where an object must be");
  text("nested deep", std::string(1'000'000, '['), "nests more than 64 levels deep");
  text("empty object", "{}", "it has no \"format\"");
  text("another format", R"({"format": "pt"})", "its format is \"pt\", not \"optp-training-checkpoint\"");
  manifest("newer", "\"version\": 1", "\"version\": 2",
           "it has version 2 and this optp reads versions up to 1; use a newer optp");
  expect(
      "newer by hand", [](const fs::path& folder) { edit(folder / kManifest, "\"version\": 1", "\"version\": 7"); },
      kManifest, "use a newer optp (or it was altered: its checksum does not match)");
  manifest("version zero", "\"version\": 1", "\"version\": 0", "its \"version\" is \"0\", not a whole number");
  manifest("version a string", "\"version\": 1", "\"version\": \"1\"", "its \"version\" is \"1\", not a whole number");
  expect(
      "by hand", [](const fs::path& folder) { edit(folder / kManifest, "\"lr\": 0.1", "\"lr\": 0.2"); }, kManifest,
      "it was altered after it was written: its checksum does not match");
  expect(
      "a space at the end",
      [](const fs::path& folder) { write_bytes(folder / kManifest, read_bytes(folder / kManifest) + " "); }, kManifest,
      "it was altered");
  manifest("no mesh", "\"mesh\"", "\"mash\"", "it has no \"mesh\"");
  manifest("mesh a number", "\"mesh\": {\n    \"tp\": 2,\n    \"dp\": 1\n  }", "\"mesh\": 2",
           "it holds \"2\" where an object must be");
  manifest("tp zero", "\"tp\": 2", "\"tp\": 0", "its \"tp\" is \"0\", not a whole number from 1 to");
  manifest("tp absurd", "\"tp\": 2", "\"tp\": 99999999999999999999", "not a whole number from 1 to");
  manifest("tp another", "\"tp\": 2", "\"tp\": 3", "it names 2 files of parameters for 3 tensor-parallel ranks");
  manifest("no files", "\"files\"", "\"fils\"", "it has no \"files\"");
  manifest("no model configuration", "\"model_config\"", "\"config\"", "it has no \"model_config\"");
  for (const std::string& path :
       std::vector<std::string>{"../" + kFirst, "/etc/passwd", "..", ".", "", "a/b", "a\\u0000b"}) {
    manifest("leaves the folder: " + path, "\"" + kFirst + "\"", "\"" + path + "\"",
             "which is not a plain name inside the folder");
  }
  manifest("a file twice", "\"" + kFirst + "\"", "\"" + kSecond + "\"", "it names the file \"" + kSecond + "\" twice");
  manifest("no such part", "\"part\": \"parameters\"", "\"part\": \"weights\"", "holds \"weights\", which is neither");
  manifest("rank negative", "\"rank\": 1", "\"rank\": -1", "its \"rank\" is \"-1\", not a whole number from 0");
  manifest("rank twice", "\"rank\": 1", "\"rank\": 0", "from the ranks out of order at \"" + kSecond + "\"");
  manifest("size missing", "\"size\"", "\"bytes\"", "it has no \"size\"");
  manifest("size negative", "\"size\": ", "\"size\": -", "its \"size\" is \"-");
  manifest("size fractional", "\"size\": ", "\"size\": 0.", "its \"size\" is \"0.");
  manifest("size absurd", "\"size\": ", "\"size\": 1000000000000000000000", "its \"size\" is \"1");
  manifest("checksum short", "\"crc64\": \"", "\"crc64\": \"0", "not 16 hexadecimal digits");
  manifest("checksum no number", "\"crc64\": \"", "\"crc64\": 7, \"was\": \"", "its \"crc64\" is \"7\", not a string");
}

TEST_F(CheckpointDamage, OfAFileIsOneClearError) {
  const auto on = [&](const std::string& label, const std::string& file,
                      const std::function<void(const fs::path&)>& damage, const std::string& message) {
    expect(label, [&](const fs::path& folder) { damage(folder / file); }, file, message);
  };
  for (const std::string& file : {kFirst, kSecond, kState}) {
    SCOPED_TRACE(file);
    const size_t size = fs::file_size(good_ / "step-00000002" / file);
    on("missing", file, [](const fs::path& path) { fs::remove(path); }, "No such file or directory");
    on("a folder", file, [](const fs::path& path) { fs::remove(path), fs::create_directory(path); }, "directory");
    on("empty", file, [](const fs::path& path) { write_bytes(path, ""); }, "has 0 bytes, but checkpoint.json says");
    on(
        "truncated", file, [&](const fs::path& path) { fs::resize_file(path, size - 1); },
        "has " + std::to_string(size - 1) + " bytes, but checkpoint.json says " + std::to_string(size) +
            ": it was truncated");
    on("grown", file, [&](const fs::path& path) { fs::resize_file(path, size + 8); }, ": it was altered");
    on(
        "last bit", file, [&](const fs::path& path) { flip_bit(path, size - 1, 7); },
        "was altered, or belongs to another checkpoint: its checksum is");
    on("all zeros", file, [&](const fs::path& path) { write_bytes(path, std::string(size, '\0')); }, "was altered");
    on(
        "of an older checkpoint", file,
        [&](const fs::path& path) {
          fs::copy_file(path.parent_path().parent_path() / "step-00000001" / file, path,
                        fs::copy_options::overwrite_existing);
        },
        "was altered, or belongs to another checkpoint");
  }
  on(
      "swapped", kFirst,
      [](const fs::path& path) {
        fs::rename(path, path.parent_path() / "between");
        fs::rename(path.parent_path() / kSecond, path);
        fs::rename(path.parent_path() / "between", path.parent_path() / kSecond);
      },
      "checkpoint.json says");
}

// What the checksums do not show, since whoever wrote the files computed them.
TEST_F(CheckpointDamage, OfTheContentIsOneClearError) {
  const auto on = [&](const std::string& label, const std::string& file, const std::string& from, const std::string& to,
                      const std::string& message, bool names_file = true) {
    expect(label, [&](const fs::path& folder) { edit_file(folder, file, from, to); }, names_file ? file : "", message);
  };
  on("rank", kSecond, R"("rank":"1")", R"("rank":"0")", "its metadata says rank \"0\", but checkpoint.json says \"1\"");
  on("tp", kSecond, R"("tp":"2")", R"("tp":"3")", "its metadata says tp \"3\", but checkpoint.json says \"2\"");
  on("part", kSecond, R"("part":"parameters")", R"("part":"optimizer_state")", "its metadata says part");
  on("format", kSecond, R"("format":"optp)", R"("format":"xptp)", "its metadata says format");
  on("no metadata", kSecond, R"("rank":)", R"("bank":)", "its metadata has no \"rank\"");
  on("no tensors", kSecond, R"("tensors":)", R"("sensors":)", "its metadata has no \"tensors\"");
  on("tensors no JSON", kSecond, R"("tensors":"{)", R"("tensors":"[)", "are not a JSON object");
  on("tensor missing", kSecond, R"("layers.0.rows":{"dtype")", R"("layers.0.roes":{"dtype")",
     "it lacks the tensor \"layers.0.rows\" of its metadata");
  on("tensor without a place", kSecond, R"(\"layers.0.rows\":)", R"(\"layers.0.roes\":)",
     "it lacks the tensor \"layers.0.roes\"");
  const std::string start = R"(\"embedding\":{\"shape\":[11,6],\"size\":[5,6],\"start\":[6,0]})";
  const auto box = [&](const std::string& label, const std::string& to, const std::string& message, bool names = true) {
    on(label, kSecond, start, R"(\"embedding\":)" + to, message, names);
  };
  box("not an object", "7", "its metadata lists no \"shape\" of tensor \"embedding\"");
  box("no start", R"({\"shape\":[11,6],\"size\":[5,6]})", "its metadata lists no \"start\" of tensor \"embedding\"");
  box("start negative", R"({\"shape\":[11,6],\"size\":[5,6],\"start\":[-6,0]})", "the start of tensor \"embedding\"");
  box("start a string", R"({\"shape\":[11,6],\"size\":[5,6],\"start\":[\"6\",0]})",
      "of tensor \"embedding\" holds \"\"6\"\"");
  box("start huge", R"({\"shape\":[11,6],\"size\":[5,6],\"start\":[18446744073709551610,0]})", "the start of tensor");
  box("nested deep", "[[[[[[[[]]]]]]]]", "nest too deep");
  box("beyond the whole", R"({\"shape\":[11,6],\"size\":[5,6],\"start\":[7,0]})",
      "cannot be the part of size [5, 6] from [7, 0] of a whole of shape [11, 6]");
  box("other dimensions", R"({\"shape\":[11,6],\"size\":[5,6],\"start\":[6]})", "cannot be the part");
  box("other size", R"({\"shape\":[11,6],\"size\":[6,5],\"start\":[5,0]})",
      "tensor \"embedding\" of shape [5, 6] cannot be the part of size [6, 5]");
  box("shape that overflows", R"({\"shape\":[9223372036854775807,6],\"size\":[5,6],\"start\":[6,0]})",
      "cannot be the part");
  box("overlap", R"({\"shape\":[11,6],\"size\":[5,6],\"start\":[5,0]})",
      "the parts of tensor \"embedding\" in " + kFirst + " and 1 more overlap", false);
  box("gap", R"({\"shape\":[12,6],\"size\":[5,6],\"start\":[6,0]})", "tensor \"embedding\" is part of a Float tensor");
  on("gap in one file", kFirst, R"(\"norm.weight\":{\"shape\":[5],)", R"(\"norm.weight\":{\"shape\":[6],)",
     "the parts of tensor \"norm.weight\" in " + kFirst + " leave a gap", false);
  on("other dtype", kSecond, R"("layers.0.half":{"dtype":"BF16")", R"("layers.0.half":{"dtype":"F16")",
     "tensor \"layers.0.half\" is part of a Half tensor");
}

// One altered bit, wherever it is: named, on all ranks alike.
TEST_F(CheckpointDamage, OfAnyBitIsFound) {
  for (const std::string& file : {kManifest, kFirst, kState}) {
    const Copy copy;
    copy_into(copy);
    const fs::path path = copy.newest() / file;
    const std::string good = read_bytes(path);
    // All of the manifest; of the others the header's beginning and places all over.
    const size_t step = file == kManifest ? 1 : 37;
    for (size_t byte = 0; byte < good.size(); byte += byte < 40 ? 1 : step) {
      std::string bad = good;
      bad[byte] = static_cast<char>(bad[byte] ^ (1 << byte % 8));
      write_bytes(path, bad);
      EXPECT_PRED_FORMAT2(IsSubstring, path.string(), error_of(copy.newest())) << "byte " << byte;
    }
  }
}

TEST_F(CheckpointDamage, IsTheSameErrorOnEveryRank) {
  const Copy copy;
  copy_into(copy);
  flip_bit(copy.newest() / kState, fs::file_size(copy.newest() / kState) / 2, 5);
  std::vector<std::string> errors(6);
  testing::run_ranks(3, 2, [&](const Mesh& mesh) {
    const int64_t rank = mesh.tensor().rank();
    const TrainingCheckpoint checkpoint(copy.newest(), mesh);
    checkpoint.load_parameters(testing::cut_empty(testing::whole_parameters(2), rank, 3));
    errors[mesh.world().rank()] = testing::message_of<c10::ValueError>(
        [&] { checkpoint.load_optimizer_state(testing::cut_empty(testing::whole_optimizer_state(2), rank, 3)); });
  });
  EXPECT_PRED_FORMAT2(IsSubstring, (copy.newest() / kState).string() + " was altered", errors[0]);
  for (const std::string& error : errors) EXPECT_EQ(error, errors[0]);
}

TEST_F(CheckpointDamage, OffersTheNewestOlderOneThatHasItsFiles) {
  const Copy copy;
  copy_into(copy);
  fs::copy(copy.older(), copy.folder / "step-00000003", fs::copy_options::recursive);
  fs::remove(copy.folder / "step-00000003" / kState);
  fs::remove(copy.newest() / kFirst);
  EXPECT_PRED_FORMAT2(IsSubstring, "whole is " + copy.older().string() + ".", error_of(copy.folder / "step-00000003"));
  fs::remove(copy.older() / kFirst);
  const std::string error = error_of(copy.newest());
  EXPECT_PRED_FORMAT2(::testing::IsNotSubstring, "older", error);
  EXPECT_PRED_FORMAT2(IsSubstring, "is not a folder", error_of(copy.folder / "step-00000009"));
}

}  // namespace
}  // namespace optp

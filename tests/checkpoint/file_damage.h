// Files of weights that are damaged or lie about themselves, each with the error that names it.
#pragma once

#include <gtest/gtest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/checkpoint/checkpoint_files.h"

namespace optp {

struct FileDamage {
  std::string label;
  std::string bytes;    // of the file
  std::string message;  // part of what the error says
};

/// Opening a `File` with each of these contents is one short sentence that names the file and what is wrong.
template <typename File>
void expect_one_clear_error(const std::vector<FileDamage>& damages, const std::string& name) {
  for (const FileDamage& damage : damages) {
    SCOPED_TRACE(damage.label);
    const TemporaryFolder folder;
    const std::filesystem::path path = folder / name;
    write_bytes(path, damage.bytes);
    const std::string message = value_error([&] { File file(path); });
    EXPECT_PRED_FORMAT2(::testing::IsSubstring, "cannot read " + path.string() + ": ", message);
    EXPECT_PRED_FORMAT2(::testing::IsSubstring, damage.message, message);
    EXPECT_LT(message.size(), path.string().size() + 400);
  }
}

}  // namespace optp

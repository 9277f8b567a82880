// AtomicFile: what a writer that was killed leaves is removed later, what is being written stays.
#include "src/checkpoint/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>

#include "tests/support/program.h"

namespace optp::testing {
namespace {

TEST(AtomicFile, WhatAKilledWriterLeftIsRemoved) {
  const TemporaryFolder folder;
  const auto entries = [&] {
    const std::filesystem::directory_iterator all(folder.path());
    return std::distance(begin(all), end(all));
  };
  const pid_t child = fork();
  if (child == 0) {
    AtomicFile abandoned(folder / "file");
    abandoned.write("x", 1);
    raise(SIGKILL);
  }
  waitpid(child, nullptr, 0);
  EXPECT_EQ(entries(), 1);
  AtomicFile written(folder / "other");
  written.write("y", 1);
  write_text(folder / "mine.tmp", "not ours");
  remove_abandoned_files(folder.path());
  EXPECT_EQ(entries(), 2);
  written.commit();
  EXPECT_EQ(read_file(folder / "other"), "y");
  EXPECT_EQ(read_file(folder / "mine.tmp"), "not ours");
}

}  // namespace
}  // namespace optp::testing

// Writers that are killed and disks that fail, at every call to the system in turn: what is left is whole checkpoints,
// and at most a temporary folder that the next run clears away.
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <string>
#include <vector>

#include "src/checkpoint/atomic_folder.h"
#include "src/checkpoint/training_checkpoint.h"
#include "tests/checkpoint/checkpoint_files.h"
#include "tests/checkpoint/file_calls.h"
#include "tests/checkpoint/sharded_content.h"
#include "tests/support/errors.h"
#include "tests/support/ranks.h"

namespace optp {
namespace {

namespace fs = std::filesystem;
using testing::FileCallPlan;
using ::testing::IsSubstring;
using testing::plan_file_calls;

// Its exit status, or 128 + the signal that ended it.
int in_a_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) {
    int status = 99;
    try {
      status = body();
    } catch (const std::exception& error) {
      std::cerr << error.what() << "\n" << std::flush;
    }
    ::_exit(status);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

class CheckpointFaults : public ::testing::Test {
 protected:
  CheckpointFaults() { at::set_num_threads(1); }  // children have none of their parent's threads

  // What is done to a folder that has the steps 1 and 2, and which seeds the steps may hold afterwards.
  struct Scene {
    std::string label;
    std::function<void(const fs::path&)> work;
    std::map<std::string, std::vector<uint64_t>> before, after;
  };

  static std::vector<Scene> scenes() {
    const auto write = [](int64_t step, uint64_t seed) {
      return [=](const fs::path& folder) {
        write_training_checkpoint(folder / checkpoint_name(step), testing::content_of(seed), Mesh());
      };
    };
    const std::string one = checkpoint_name(1), two = checkpoint_name(2), three = checkpoint_name(3);
    return {
        {"a new one", write(3, 3), {{one, {1}}, {two, {2}}}, {{one, {1}}, {two, {2}}, {three, {3}}}},
        {"in place of one", write(2, 9), {{one, {1}}, {two, {2, 9}}}, {{one, {1}}, {two, {9}}}},
        {"the old one goes",
         [](const fs::path& folder) { remove_old_checkpoints(folder, 1); },
         {{two, {2}}},
         {{two, {2}}}},
    };
  }

  static void make(const fs::path& folder) {
    for (const int64_t step : {1, 2}) {
      write_training_checkpoint(folder / checkpoint_name(step), testing::content_of(step), Mesh());
    }
  }

  static bool holds(const fs::path& checkpoint, uint64_t seed) {
    const TrainingCheckpoint opened(checkpoint);
    return opened.trainer_state().find("\"step\": " + std::to_string(seed) + ",") != std::string::npos;
  }

  // Every checkpoint is whole and one of those that `allowed` names, all of which are there. Besides them there are
  // temporary folders alone, or nothing if `clean`.
  static void expect_whole(const fs::path& folder, const std::map<std::string, std::vector<uint64_t>>& needed,
                           const std::map<std::string, std::vector<uint64_t>>& allowed, bool clean) {
    std::map<std::string, uint64_t> found;
    for (const fs::path& checkpoint : whole_checkpoints(folder)) {
      const std::string name = checkpoint.filename().string();
      for (const uint64_t seed : {1, 2, 3, 9}) {
        if (!holds(checkpoint, seed)) continue;
        EXPECT_EQ(testing::difference_from(checkpoint, seed), "");
        found[name] = seed;
      }
      EXPECT_TRUE(found.contains(name)) << name;
    }
    for (const auto& [name, seeds] : needed) {
      EXPECT_TRUE(found.contains(name) && std::count(seeds.begin(), seeds.end(), found[name]) == 1) << name;
    }
    for (const auto& [name, seed] : found) {
      const auto place = allowed.find(name);
      if (needed.contains(name)) continue;
      EXPECT_TRUE(place != allowed.end() && std::count(place->second.begin(), place->second.end(), seed) == 1) << name;
    }
    for (const auto& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      if (!found.contains(name)) {
        EXPECT_TRUE(!clean && name.starts_with(".step-") && name.ends_with(".partial")) << name;
      }
    }
  }
};

TEST_F(CheckpointFaults, AWriterKilledAtAnyCallLeavesWholeCheckpointsOnly) {
  for (const Scene& scene : scenes()) {
    SCOPED_TRACE(scene.label);
    int kills = 0;
    for (int call = 1;; ++call) {
      SCOPED_TRACE("call " + std::to_string(call));
      const TemporaryFolder folder;
      make(folder.path());
      const int status = in_a_child([&] {
        plan_file_calls({folder.path().string(), call, 0});
        scene.work(folder.path());
        return 0;
      });
      if (status == 0) {
        expect_whole(folder.path(), scene.after, scene.after, /*clean=*/true);
        break;
      }
      ASSERT_EQ(status, 128 + SIGKILL);
      ++kills;
      std::map<std::string, std::vector<uint64_t>> allowed = scene.after;
      allowed.merge(std::map<std::string, std::vector<uint64_t>>{{checkpoint_name(1), {1}}});
      expect_whole(folder.path(), scene.before, allowed, /*clean=*/false);
      // The next run clears up, or does the same again.
      if (call % 2 == 0) remove_unfinished_checkpoints(folder.path());
      if (call % 2 == 0) expect_whole(folder.path(), scene.before, allowed, /*clean=*/true);
      scene.work(folder.path());
      remove_unfinished_checkpoints(folder.path());
      expect_whole(folder.path(), scene.after, scene.after, /*clean=*/true);
    }
    EXPECT_GT(kills, 4);
  }
}

TEST_F(CheckpointFaults, AnyCallThatFailsIsAnErrorOrDoesNotMatter) {
  for (const Scene& scene : scenes()) {
    SCOPED_TRACE(scene.label);
    int errors = 0;
    for (int call = 1, counted = 1; call <= counted; ++call) {
      SCOPED_TRACE("call " + std::to_string(call));
      const TemporaryFolder folder;
      make(folder.path());
      plan_file_calls({folder.path().string(), call, ENOSPC});
      const std::string error = testing::message_of<c10::ValueError>([&] { scene.work(folder.path()); });
      counted = testing::counted_file_calls();
      plan_file_calls({});
      if (error == "no error") {
        // What was to be removed and could not be waits under a temporary name.
        expect_whole(folder.path(), scene.after, scene.after, /*clean=*/false);
        remove_unfinished_checkpoints(folder.path());
        expect_whole(folder.path(), scene.after, scene.after, /*clean=*/true);
        continue;
      }
      ++errors;
      EXPECT_PRED_FORMAT2(IsSubstring, folder.path().string(), error);
      EXPECT_PRED_FORMAT2(IsSubstring, "No space left on device", error);
      std::map<std::string, std::vector<uint64_t>> allowed = scene.before;
      allowed.merge(std::map<std::string, std::vector<uint64_t>>{{checkpoint_name(1), {1}}});
      expect_whole(folder.path(), scene.before, allowed, /*clean=*/scene.label != "the old one goes");
    }
    EXPECT_GT(errors, 0);
  }
}

TEST_F(CheckpointFaults, OfOneRankAreAnErrorOfAll) {
  for (const std::string file : {"optimizer_state-00001-of-00002.safetensors", "parameters-00000", "checkpoint.json"}) {
    SCOPED_TRACE(file);
    const TemporaryFolder folder;
    make(folder.path());
    std::vector<std::string> errors(4);
    testing::run_ranks(2, 2, [&](const Mesh& mesh) {
      const int64_t rank = mesh.world().rank();
      if (rank == 0) plan_file_calls({file, 1, EDQUOT});
      mesh.world().barrier("test");
      errors[rank] = testing::message_of<c10::ValueError>(
          [&] { write_training_checkpoint(folder / "step-00000003", testing::content_of(3, mesh), mesh); });
      mesh.world().barrier("test");
      if (rank == 0) plan_file_calls({});
      mesh.world().barrier("test");
      // And the ranks can go on together.
      write_training_checkpoint(folder / "step-00000002", testing::content_of(9, mesh), mesh);
    });
    EXPECT_PRED_FORMAT2(IsSubstring, file, errors[0]);
    EXPECT_PRED_FORMAT2(IsSubstring, ": Disk quota exceeded.", errors[0]);
    EXPECT_PRED_FORMAT2(IsSubstring, file.starts_with("opt") ? "on rank 3: cannot write" : "on rank 0: cannot write",
                        errors[0]);
    for (const std::string& error : errors) EXPECT_EQ(error, errors[0]);
    expect_whole(folder.path(), {{"step-00000001", {1}}, {"step-00000002", {9}}}, {}, /*clean=*/true);
  }
}

TEST_F(CheckpointFaults, AFullDiskIsAnError) {
  const TemporaryFolder folder;
  const auto fills_up = [&](const fs::path& place, const std::string& reason) {
    write_training_checkpoint(place / "step-00000001", testing::content_of(1), Mesh());
    const auto large = std::vector<testing::WholeTensor>{{"large", at::ones({1 << 20}), std::nullopt}};
    const std::string error = testing::message_of<c10::ValueError>(
        [&] { write_training_checkpoint(place / "step-00000002", {"", testing::cut(large, 0, 1), {}, ""}, Mesh()); });
    EXPECT_PRED_FORMAT2(IsSubstring, "parameters-00000-of-00001.safetensors: " + reason, error);
    expect_whole(place, {{"step-00000001", {1}}}, {}, /*clean=*/true);
    return ::testing::Test::HasFailure() ? 1 : 0;
  };
  EXPECT_EQ(in_a_child([&] {
              const rlimit limit{1 << 20, 1 << 20};
              ::setrlimit(RLIMIT_FSIZE, &limit);
              std::signal(SIGXFSZ, SIG_IGN);
              return fills_up(folder / "limited", "File too large.");
            }),
            0);
  constexpr int kNotAllowed = 42;
  fs::create_directory(folder / "mounted");
  const int status = in_a_child([&] {
    if (::unshare(CLONE_NEWNS) != 0 || ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
        ::mount("none", (folder / "mounted").c_str(), "tmpfs", 0, "size=1m") != 0) {
      return kNotAllowed;
    }
    return fills_up(folder / "mounted", "No space left on device.");
  });
  if (status == kNotAllowed) {
    std::cout << "mounting a small file system is not allowed here: a limit on the size of files stood in for it\n";
  } else {
    EXPECT_EQ(status, 0);
  }
}

TEST_F(CheckpointFaults, AWriterThatIsAliveIsLeftAlone) {
  const TemporaryFolder folder;
  AtomicFolder writer(folder / "step-00000003");
  write_bytes(writer.temporary() / "parameters", "half");
  remove_unfinished_checkpoints(folder.path());
  remove_abandoned(folder / "step-00000003");
  EXPECT_EQ(read_bytes(writer.temporary() / "parameters"), "half");
  const std::string error =
      value_error([&] { write_training_checkpoint(folder / "step-00000003", testing::content_of(3), Mesh()); });
  EXPECT_PRED_FORMAT2(IsSubstring, (folder / "step-00000003").string() + ": another process is writing it", error);
  writer.commit();
  EXPECT_EQ(read_bytes(folder / "step-00000003" / "parameters"), "half");
}

}  // namespace
}  // namespace optp

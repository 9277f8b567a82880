// run_local_ranks, from outside: rank_program runs itself on several ranks that behave as its argument says; this looks
// at what it prints, how it ends, and what it leaves behind.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <functional>
#include <iterator>
#include <sstream>
#include <string>

namespace {

using Clock = std::chrono::steady_clock;

std::string contents(int fd) {
  std::string text(1 << 20, '\0');
  text.resize(static_cast<size_t>(std::max<ssize_t>(pread(fd, text.data(), text.size(), 0), 0)));
  return text;
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

// One run of rank_program. Whatever it leaves running becomes a child of this process, so that finish() can see it.
class Program {
 public:
  explicit Program(
      const std::string& how, int ranks = 2, const std::function<void()>& prepare = [] {})
      : started_(Clock::now()) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    pid_ = fork();
    if (pid_ == 0) {
      setenv("INHERITED", "yes", 1);
      dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
      dup2(fileno(out_), STDOUT_FILENO);
      dup2(fileno(err_), STDERR_FILENO);
      prepare();
      execl(OPTP_RANK_PROGRAM, OPTP_RANK_PROGRAM, how.c_str(), std::to_string(ranks).c_str(), nullptr);
      _exit(126);
    }
  }
  ~Program() {
    fclose(out_);
    fclose(err_);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;

  std::string out() const { return contents(fileno(out_)); }
  std::string err() const { return contents(fileno(err_)); }
  double seconds() const { return std::chrono::duration<double>(Clock::now() - started_).count(); }

  // Until rank 0 has printed `text`.
  void wait_for(const std::string& text) const {
    while (out().find(text) == std::string::npos) {
      ASSERT_LT(seconds(), 60) << "no \"" << text << "\"";
      usleep(10000);
    }
  }

  void send(int signal) const { kill(pid_, signal); }

  // The exit status, or minus the signal. No process may be left.
  int finish() const {
    int status = 0;
    EXPECT_EQ(waitpid(pid_, &status, 0), pid_);
    EXPECT_EQ(waitpid(-1, nullptr, WNOHANG), -1) << "a rank outlived the program";
    EXPECT_EQ(errno, ECHILD);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }

 private:
  FILE* out_ = tmpfile();
  FILE* err_ = tmpfile();
  pid_t pid_ = -1;
  Clock::time_point started_;
};

TEST(LaunchLocalRanks, RanksMeetAndEnd) {
  const Program program("meet", 3);
  EXPECT_EQ(program.finish(), 0);
  EXPECT_EQ(program.err(), "");
  int port = 0;
  std::string word;
  ASSERT_TRUE(std::istringstream(program.out()) >> word >> word >> word >> port) << program.out();
  char listening[32];
  std::snprintf(listening, sizeof(listening), ":%04X 00000000:0000 0A", port);
  std::ifstream table("/proc/net/tcp");
  const std::string sockets((std::istreambuf_iterator<char>(table)), std::istreambuf_iterator<char>());
  EXPECT_EQ(count_of(sockets, listening), 0u);
}

TEST(LaunchLocalRanks, RanksInheritWhatTheyShould) {
  // Also when the program itself was started without a standard input and with a stray open file.
  const Program program("describe", 2, [] {
    dup2(STDERR_FILENO, 77);
    close(STDIN_FILENO);
  });
  EXPECT_EQ(program.finish(), 3);
  const auto description = [](const std::string& rank) {
    return "rank " + rank + " input '' open files 0 blocked 0 LOCAL_RANK=" + rank +
           " WORLD_SIZE=2 LOCAL_WORLD_SIZE=2 MASTER_ADDR=127.0.0.1 TORCHELASTIC_USE_AGENT_STORE=True"
           " TORCHELASTIC_RESTART_COUNT=0 INHERITED=yes\n";
  };
  EXPECT_EQ(program.out(), description("0"));
  EXPECT_EQ(program.err(), "[rank 1] " + description("1") + "optp: rank 1 exited with status 9\n");
}

TEST(LaunchLocalRanks, TheSameErrorOfAllRanksIsShownOnce) {
  const Program program("same-error", 3);
  EXPECT_EQ(program.finish(), 2);
  EXPECT_EQ(program.err(), "optp: bad input\n");
}

TEST(LaunchLocalRanks, AnErrorOfOneRankIsShownWithItsNumber) {
  const Program program("one-error");
  EXPECT_EQ(program.finish(), 2);
  EXPECT_EQ(program.err(), "[rank 1] first line\n[rank 1] second line\n");
}

TEST(LaunchLocalRanks, AFailedRankEndsTheRun) {
  const Program program("other-error");
  EXPECT_EQ(program.finish(), 3);
  EXPECT_EQ(program.err(), "rank 0 speaks\n[rank 1] rank 1 speaks\noptp: rank 1 exited with status 3\n");
}

TEST(LaunchLocalRanks, AKilledRankEndsTheRun) {
  const Program program("killed");
  EXPECT_EQ(program.finish(), 3);
  EXPECT_EQ(program.err(), "optp: rank 1 was killed by signal 9 (Killed)\n");
  EXPECT_LT(program.seconds(), 60);
}

TEST(LaunchLocalRanks, AFailureOfRankZeroEndsTheOthers) {
  const Program program("first-fails");
  EXPECT_EQ(program.finish(), 3);
  EXPECT_EQ(program.err(), "optp: rank 0 exited with status 3\n");
}

TEST(LaunchLocalRanks, TheCauseIsShownNotItsConsequence) {
  const Program program("consequence");
  EXPECT_EQ(program.finish(), 2);
  EXPECT_EQ(program.err(), "[rank 1] the cause\n");
}

TEST(LaunchLocalRanks, AFailedCheckLeavesRankZeroTimeToReport) {
  const Program program("verdict");
  EXPECT_EQ(program.finish(), 1);
  EXPECT_EQ(program.err(), "report written\n");
}

TEST(LaunchLocalRanks, ARankThatIgnoresTerminationIsKilled) {
  const Program program("stubborn");
  EXPECT_EQ(program.finish(), 2);
  EXPECT_GE(program.seconds(), 6);
  EXPECT_EQ(program.err(), "");
}

TEST(LaunchLocalRanks, TheEndOfLongOutputIsKept) {
  const Program program("chatty");
  EXPECT_EQ(program.finish(), 3);
  const std::string text = program.err();
  EXPECT_TRUE(text.starts_with("[rank 1] line ")) << text.substr(0, 80);
  EXPECT_TRUE(text.ends_with("[rank 1] line 19999\noptp: rank 1 exited with status 4\n"));
  // 64 KiB of lines of 11 bytes.
  EXPECT_NEAR(static_cast<double>(count_of(text, "[rank 1] line ")), 65536 / 11.0, 2);
}

TEST(LaunchLocalRanks, SignalsArePassedOnOnce) {
  for (const int signal : {SIGINT, SIGTERM}) {
    for (const std::string how : {"sleep", "count-signals"}) {
      const Program program(how);
      program.wait_for("ready");
      program.send(signal);
      EXPECT_EQ(program.finish(), 128 + signal);
      EXPECT_EQ(program.err(), "");
      EXPECT_EQ(program.out(), how == "sleep" ? "ready\n" : "ready\nsignals 1\n");
    }
  }
}

TEST(LaunchLocalRanks, ControlCInATerminalReachesRanksOnce) {
  int terminal = -1;
  char name[64] = "";
  int keyboard = -1;
  ASSERT_EQ(openpty(&keyboard, &terminal, name, nullptr, nullptr), 0);
  const Program program("count-signals", 2, [&] {
    setsid();
    close(open(name, O_RDWR));  // becomes the controlling terminal
  });
  program.wait_for("ready");
  ASSERT_EQ(write(keyboard, "\x03", 1), 1);
  EXPECT_EQ(program.finish(), 130);
  EXPECT_EQ(program.err(), "");
  EXPECT_EQ(program.out(), "ready\nsignals 1\n");
  close(terminal);
  close(keyboard);
}

TEST(LaunchLocalRanks, ASecondInterruptKills) {
  const Program program("deaf");
  program.wait_for("ready");
  program.send(SIGINT);
  usleep(1200000);
  program.send(SIGINT);
  EXPECT_EQ(program.finish(), 130);
  EXPECT_EQ(program.err(), "");
}

TEST(LaunchLocalRanks, AnIgnoredInterruptStaysIgnored) {
  const Program program("sleep", 2, [] { std::signal(SIGINT, SIG_IGN); });
  program.wait_for("ready");
  program.send(SIGINT);
  usleep(300000);
  program.send(SIGTERM);
  EXPECT_EQ(program.finish(), 143);
}

TEST(LaunchLocalRanks, RanksDieWithTheirParent) {
  const Program program("deaf");
  program.wait_for("ready");
  program.send(SIGKILL);
  int ended = 0;
  while (waitpid(-1, nullptr, 0) > 0) ++ended;
  EXPECT_EQ(ended, 3);
  EXPECT_LT(program.seconds(), 60);
}

}  // namespace

// optp tokenize as a user runs it: wrong usage, bad files, and the round trip.
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "src/data/token_file.h"
#include "tests/support/program.h"

namespace optp::testing {
namespace {

using namespace std::string_literals;

class TokenizeLaunch : public ::testing::Test {
 protected:
  TokenizeLaunch() { write_text(text(), "Hello, world\n"); }

  std::string text() const { return (folder_ / "text.txt").string(); }
  std::string ids() const { return (folder_ / "ids.npy").string(); }

  ProgramResult tokenize(std::vector<std::string> arguments, const std::string& tokenizer = OPTP_GOLDEN "/tokenizer") {
    arguments.insert(arguments.begin(), {"tokenize", "--tokenizer", tokenizer});
    return run_optp(arguments, {}, 60);
  }

  // One line on standard error, nothing on standard output, exit status 2, and no file.
  void expect_refused(const std::vector<std::string>& arguments, const std::string& part,
                      const std::string& tokenizer = OPTP_GOLDEN "/tokenizer") {
    const ProgramResult result = tokenize(arguments, tokenizer);
    EXPECT_EQ(result.status, 2) << part;
    EXPECT_EQ(result.out, "");
    EXPECT_TRUE(result.err.starts_with("optp: ")) << result.err;
    EXPECT_EQ(std::count(result.err.begin(), result.err.end(), '\n'), 1) << result.err;
    EXPECT_NE(result.err.find(part), std::string::npos) << result.err;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path())) {
      EXPECT_TRUE(entry.path() == text() || entry.path() == folder_ / "bad") << entry.path();
    }
  }

  TemporaryFolder folder_;
};

TEST_F(TokenizeLaunch, RefusesWrongUsage) {
  expect_refused({}, "--input and --output");
  expect_refused({"--input", text()}, "--input and --output");
  expect_refused({"--ids", "a", "--decode"}, "--ids prints the ids of its text");
  expect_refused({"--input", text(), "--output", ids(), "--decode", "--document-separator", "x"}, "--decode");
  expect_refused({"--input", text(), "--output", ids(), "--document-separator", ""}, "--document-separator is empty");
  expect_refused({"--input", text(), "--output", text()}, "is the file that --input names");
  EXPECT_EQ(run_optp({"tokenize", "--ids", "a"}).status, 2);  // no tokenizer
}

TEST_F(TokenizeLaunch, RefusesBadFiles) {
  expect_refused({"--input", "/nowhere", "--output", ids()}, "cannot open /nowhere: No such file");
  expect_refused({"--input", folder_.path().string(), "--output", ids()}, "Is a directory");
  expect_refused({"--input", text(), "--output", "/nowhere/ids.npy"}, "cannot write /nowhere/ids.npy");
  expect_refused({"--input", text(), "--output", "/dev/full"}, "cannot write /dev/full");
  expect_refused({"--input", text(), "--output", ids()}, "/nowhere is no tokenizer", "/nowhere");
  expect_refused({"--input", text(), "--output", ids()}, "vocab.json does not exist", folder_.path().string());
  expect_refused({"--decode", "--input", text(), "--output", ids()}, "it is not a NumPy file");
  write_text(folder_ / "bad", "\x93NUMPY\1\0\x37\0{'descr': '<u2', 'fortran_order': False, 'shape': (1,)}\xFF\xFF"s);
  expect_refused({"--decode", "--input", (folder_ / "bad").string(), "--output", ids()},
                 "holds the id 65535 at index 0, which has no token");
}

TEST_F(TokenizeLaunch, GivesBackTheBytes) {
  const std::string content = "a\n\n  b\xFF\xC3\0z\r\n</s> \xE2\x82"s;
  write_text(text(), content);
  for (const std::string& tokenizer : {std::string("bytes"), OPTP_GOLDEN "/tokenizer"s}) {
    const ProgramResult encoded =
        tokenize({"--input", text(), "--output", ids(), "--json", (folder_ / "json").string()}, tokenizer);
    EXPECT_EQ(encoded.status, 0) << encoded.err;
    const int64_t count = TokenFile(ids()).size();
    EXPECT_EQ(encoded.out, std::to_string(count) + " tokens, " + std::to_string(content.size()) + " bytes\n");
    const auto json = nlohmann::json::parse(read_file(folder_ / "json"));
    EXPECT_EQ(json["tokens"], count);
    EXPECT_EQ(json["bytes"], content.size());
    EXPECT_GT(json["seconds"], 0);
    const std::string back = (folder_ / "back").string();
    EXPECT_EQ(tokenize({"--decode", "--input", ids(), "--output", back, "--quiet"}, tokenizer).err, "");
    EXPECT_EQ(read_file(back), content);
  }
}

TEST_F(TokenizeLaunch, SplitsDocumentsAndPrintsIds) {
  write_text(text(), "ab<end>c");
  EXPECT_EQ(tokenize({"--input", text(), "--output", ids(), "--document-separator", "<end>"}, "bytes").status, 0);
  const TokenFile file(ids());
  std::vector<int64_t> found(static_cast<size_t>(file.size()));
  file.read(0, file.size(), found.data());
  EXPECT_EQ(found, (std::vector<int64_t>{101, 102, 2, 103, 2}));
  EXPECT_EQ(tokenize({"--ids", "a </s>"}, "bytes").out, "101,36,64,51,119,66\n");
  EXPECT_EQ(tokenize({"--ids", ""}, "bytes").out, "\n");
  const ProgramResult help = run_optp({"tokenize", "--help"});
  for (const char* option : {"--document-separator", "--decode", "--ids", "Examples"}) {
    EXPECT_NE(help.out.find(option), std::string::npos) << option;
  }
}

}  // namespace
}  // namespace optp::testing

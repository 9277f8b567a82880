// Whole files: the separators of documents, wherever they fall, and the cache of texts.
#include "src/data/tokenize.h"

#include <gtest/gtest.h>
#include <sys/file.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <random>
#include <thread>

#include "parallel/process_group.h"
#include "src/data/open_tokens.h"
#include "tests/support/errors.h"
#include "tests/support/program.h"
#include "tests/support/ranks.h"

namespace optp::testing {
namespace {

using Ids = std::vector<int64_t>;
namespace fs = std::filesystem;

constexpr const char* kGoldenBpe = OPTP_GOLDEN "/tokenizer";

Ids ids_of_file(const TokenFile& file) {
  Ids ids(static_cast<size_t>(file.size()));
  file.read(0, file.size(), ids.data());
  return ids;
}

Ids tokenize_file(const fs::path& text, const Tokenizer& tokenizer, const std::string& separator) {
  const fs::path output = text.string() + ".npy";
  TextReader reader(text);
  TokenWriter writer(output, tokenizer.vocab_size());
  tokenize(reader, tokenizer, separator, writer);
  writer.commit();
  return ids_of_file(TokenFile(output));
}

Ids bytes_with_ends(const std::vector<std::string>& documents) {
  Ids ids;
  for (const std::string& document : documents) {
    for (const char c : document) ids.push_back(4 + static_cast<unsigned char>(c));
    ids.push_back(kEndToken);
  }
  return ids;
}

TEST(Tokenize, EndsDocumentsWhereTheSeparatorStands) {
  const TemporaryFolder folder;
  const auto bytes = open_tokenizer("bytes");
  const auto split = [&](const std::string& text, const std::string& separator) {
    write_text(folder / "text", text);
    return tokenize_file(folder / "text", *bytes, separator);
  };
  EXPECT_EQ(split("ab", ""), (Ids{4 + 'a', 4 + 'b'}));  // one document, ended by nothing
  EXPECT_EQ(split("", ""), Ids{});
  EXPECT_EQ(split("", "--"), Ids{});
  EXPECT_EQ(split("ab", "--"), bytes_with_ends({"ab"}));
  EXPECT_EQ(split("a--b", "--"), bytes_with_ends({"a", "b"}));
  EXPECT_EQ(split("a--b--", "--"), bytes_with_ends({"a", "b"}));  // nothing follows the last
  EXPECT_EQ(split("a----b", "--"), bytes_with_ends({"a", "", "b"}));
  EXPECT_EQ(split("--a", "--"), bytes_with_ends({"", "a"}));
  EXPECT_EQ(split("a---b", "--"), bytes_with_ends({"a", "-b"}));
  EXPECT_EQ(split("a-", "--"), bytes_with_ends({"a-"}));
  EXPECT_EQ(split("--", "--"), bytes_with_ends({""}));
}

// Texts of several blocks of reading, with separators on and around the blocks' edges, against each document at once.
TEST(Tokenize, ReadsInPiecesWhatTheTokenizerGivesAtOnce) {
  const TemporaryFolder folder;
  const auto tokenizer = open_tokenizer(kGoldenBpe);
  std::mt19937 random(5);
  const std::string separator = "<|end|>";
  const std::vector<std::string> pieces = {" the License", "\n\n", "'s", "  ",   "\u4e2d",
                                           "\xE2\x82",     "12",   "!",  "aaaa", "<|en"};
  for (int round = 0; round < 4; ++round) {
    std::string text;
    Ids expected;
    std::string document;
    const auto end_document = [&] {
      for (const int64_t id : tokenizer->encode(document)) expected.push_back(id);
      expected.push_back(kEndToken);
      document.clear();
    };
    while (text.size() < 2'200'000) {
      const size_t to_edge = (size_t{1} << 20) - text.size() % (size_t{1} << 20);
      const bool near_edge = to_edge <= random() % 8;
      if (near_edge || random() % 5000 == 0) {
        end_document();
        text += separator;
      } else {
        const std::string& piece = to_edge < 30 ? pieces.back() : pieces[random() % pieces.size()];
        document += piece;
        text += piece;
      }
    }
    end_document();
    write_text(folder / "text", text);
    EXPECT_TRUE(tokenize_file(folder / "text", *tokenizer, separator) == expected);
    EXPECT_TRUE(tokenize_file(folder / "text", *tokenizer, "") == tokenizer->encode(text));

    EXPECT_EQ(detokenize(TokenFile(folder / "text.npy"), *tokenizer, folder / "back"),
              static_cast<int64_t>(text.size()));
    EXPECT_TRUE(read_file(folder / "back") == text);
  }
}

TEST(Tokenize, NamesTheIdThatHasNoToken) {
  const TemporaryFolder folder;
  TokenWriter writer(folder / "ids.npy", 1000);
  writer.write(Ids(70'000, 5));
  writer.write({700});
  writer.commit();
  const TokenFile ids(folder / "ids.npy");
  EXPECT_NE(message_of<c10::ValueError>([&] {
              detokenize(ids, *open_tokenizer("bytes"), folder / "text");
            }).find("ids.npy holds the id 700 at index 70000, which has no token"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "text"));
}

// Texts opened for training; the cache is a folder of the test's own.
class OpenTokens : public ::testing::Test {
 protected:
  OpenTokens() {
    ::setenv("XDG_CACHE_HOME", (folder_ / "cache").c_str(), 1);
    fs::create_directory(folder_ / "cache");
    write_text(folder_ / "text.txt", "Once upon a time");
  }
  ~OpenTokens() override { ::unsetenv("XDG_CACHE_HOME"); }

  std::shared_ptr<const TokenFile> open(const std::string& name, const std::string& tokenizer = "bytes") {
    return open_tokens({(folder_ / name).string()}, tokenizer, ProcessGroup()).front();
  }
  std::string error_of(const std::string& name, const std::string& tokenizer = "bytes") {
    return message_of<c10::ValueError>([&] { open(name, tokenizer); });
  }
  std::vector<fs::path> entries() const {
    std::vector<fs::path> found;
    for (const auto& entry : fs::recursive_directory_iterator(folder_ / "cache")) {
      if (entry.path().extension() == ".npy" || entry.path().extension() == ".tmp") found.push_back(entry.path());
    }
    return found;
  }

  TemporaryFolder folder_;
};

TEST_F(OpenTokens, KeepsTextsByTheirContentAndTokenizer) {
  const auto file = open("text.txt");
  EXPECT_EQ(ids_of_file(*file), open_tokenizer("bytes")->encode("Once upon a time"));
  ASSERT_EQ(entries().size(), 1);
  EXPECT_EQ(file->path(), entries().front());
  const auto written = fs::last_write_time(file->path());

  fs::copy_file(folder_ / "text.txt", folder_ / "copy.txt");
  EXPECT_EQ(open("copy.txt")->path(), file->path());
  EXPECT_EQ(fs::last_write_time(file->path()), written);
  EXPECT_NE(open("text.txt", kGoldenBpe)->path(), file->path());
  write_text(folder_ / "text.txt", "Once upon a tome");  // the same size, and perhaps the same time
  EXPECT_EQ(ids_of_file(*open("text.txt")), open_tokenizer("bytes")->encode("Once upon a tome"));
  EXPECT_EQ(entries().size(), 3);
  for (const auto& entry : fs::directory_iterator(folder_.path())) EXPECT_NE(entry.path().extension(), ".npy");
}

TEST_F(OpenTokens, MakesADamagedEntryAgainAndClearsUp) {
  const fs::path entry = open("text.txt")->path();
  write_text(entry, "broken");
  write_text(entry.parent_path() / ".optp-1-0.tmp", "left by a killed run");
  EXPECT_EQ(ids_of_file(*open("text.txt")), open_tokenizer("bytes")->encode("Once upon a time"));
  EXPECT_EQ(entries().size(), 1);
}

TEST_F(OpenTokens, RanksAndRunsShareTheWork) {
  std::string text;
  for (int i = 0; i < 200'000; ++i) text += "line " + std::to_string(i) + "\n";
  write_text(folder_ / "text.txt", text);
  const Ids expected = open_tokenizer(kGoldenBpe)->encode(text);
  // Three runs of two ranks at once.
  std::vector<std::thread> runs;
  std::atomic<int> right = 0;
  for (int run = 0; run < 3; ++run) {
    runs.emplace_back([&] {
      optp::testing::run_ranks_over(Mesh::Comm::automatic, 2, 1, [&](const Mesh& mesh) {
        const auto files = open_tokens({(folder_ / "text.txt").string()}, kGoldenBpe, mesh.world());
        if (ids_of_file(*files.front()) == expected) ++right;
      });
    });
  }
  for (std::thread& run : runs) run.join();
  EXPECT_EQ(right, 6);
  EXPECT_EQ(entries().size(), 1);
}

TEST_F(OpenTokens, OpensTokenFilesWhereTheyAre) {
  {
    TokenWriter(folder_ / "ids.npy", 300).commit();
  }
  EXPECT_EQ(open("ids.npy", "/no tokenizer is needed")->path(), folder_ / "ids.npy");
  EXPECT_TRUE(entries().empty());
}

TEST_F(OpenTokens, RefusesWhatItCannotReadOrKeep) {
  EXPECT_NE(error_of("nowhere.txt").find("nowhere.txt: No such file"), std::string::npos);
  EXPECT_NE(error_of("text").find("text is neither .txt nor .npy"), std::string::npos);
  EXPECT_NE(error_of("text.txt", "/nowhere").find("/nowhere is no tokenizer"), std::string::npos);
  fs::create_directory(folder_ / "folder.txt");
  EXPECT_NE(error_of("folder.txt").find("folder.txt: Is a directory"), std::string::npos);
  fs::rename(folder_ / "text.txt", folder_ / "text.npy");
  EXPECT_NE(error_of("text.npy").find("it is not a NumPy file"), std::string::npos);
  fs::rename(folder_ / "text.npy", folder_ / "text.txt");
  ::setenv("XDG_CACHE_HOME", (folder_ / "text.txt").c_str(), 1);  // a file, which no one can write into, root included
  EXPECT_NE(error_of("text.txt").find("set XDG_CACHE_HOME to a folder that can be written"), std::string::npos);
}

}  // namespace
}  // namespace optp::testing

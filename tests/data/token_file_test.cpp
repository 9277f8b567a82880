// Token files: what NumPy writes is read, what is no such file is refused.
#include "src/data/token_file.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "src/data/token_writer.h"
#include "src/data/xxh64.h"
#include "tests/support/errors.h"
#include "tests/support/program.h"
#include "tests/support/tensors.h"

namespace optp::testing {
namespace {

using namespace std::string_literals;

// A file as NumPy writes it, whatever the header says.
std::string npy_bytes(const std::string& header, const std::string& data, char version = 1) {
  std::string bytes = "\x93NUMPY" + std::string{version, '\0'};
  const size_t length = header.size();
  bytes += {static_cast<char>(length), static_cast<char>(length >> 8)};
  if (version > 1) bytes += {static_cast<char>(length >> 16), static_cast<char>(length >> 24)};
  return bytes + header + data;
}

std::string npy_fields(const std::string& descr, const std::string& shape) {
  return "{'descr': " + descr + ", 'fortran_order': False, 'shape': " + shape + ", }\n";
}

TEST(TokenFile, ReadsWhatNumPyWrites) {
  const TemporaryFolder folder;
  const at::Tensor ids = at::tensor({1, 0x102, 0xFFFF}, at::kLong);
  const std::string narrow = "\1\0\2\1\xFF\xFF"s;
  const std::string wide = "\1\0\0\0\2\1\0\0\xFF\xFF\0\0"s;
  for (const std::string& bytes : {
           npy_bytes(npy_fields("'<u2'", "(3,)"), narrow),
           npy_bytes(npy_fields("'<u4'", "(3,)"), wide),
           npy_bytes(npy_fields("'<u4'", "(3,)"), wide, 2),
           npy_bytes(" {\"shape\":(3 , ),'fortran_order':True,\n'descr':'<u2'} ", narrow),  // at an odd address
       }) {
    write_text(folder / "ids.npy", bytes);
    const TokenFile file(folder / "ids.npy");
    EXPECT_EQ(file.size(), 3);
    EXPECT_TRUE(same(file.read(0, 3), ids));
    EXPECT_TRUE(same(file.read(1, 2), ids.slice(0, 1)));
    EXPECT_EQ(file.read(3, 0).numel(), 0);
    EXPECT_EQ(file.largest_id(), 0xFFFF);
    for (const auto& [first, count] : std::vector<std::pair<int64_t, int64_t>>{
             {0, 4}, {4, 0}, {-1, 1}, {0, -1}, {1, INT64_MAX}, {INT64_MAX, INT64_MAX}}) {
      EXPECT_THROW(file.read(first, count), c10::IndexError);
    }
  }
}

TEST(TokenFile, ReadsWhatTokenWriterWrites) {
  const TemporaryFolder folder;
  for (const int64_t vocab_size : {65536, 65537}) {
    std::vector<int64_t> ids;
    for (int64_t i = 0; i < 300'000; ++i) ids.push_back(i * 7919 % vocab_size);
    TokenWriter writer(folder / "ids.npy", vocab_size);
    for (const size_t first : {0, 1, 5}) {
      const size_t end = first == 0 ? 1 : first == 1 ? 5 : ids.size();
      writer.write(c10::ArrayRef<int64_t>(ids).slice(first, end - first));
    }
    EXPECT_EQ(writer.count(), 300'000);
    writer.commit();
    const TokenFile file(folder / "ids.npy");
    EXPECT_TRUE(same(file.read(0, file.size()), at::tensor(ids, at::kLong)));
    EXPECT_EQ(file.largest_id(), vocab_size - 1);
    const std::string bytes = read_file(folder / "ids.npy");
    EXPECT_EQ(bytes.size(), 128 + ids.size() * (vocab_size > 65536 ? 4 : 2));
    EXPECT_EQ(file.hash(), xxh64(std::string_view(bytes).substr(128)));
  }
  TokenWriter(folder / "none.npy", 300).commit();
  EXPECT_EQ(TokenFile(folder / "none.npy").size(), 0);
  EXPECT_EQ(TokenFile(folder / "none.npy").largest_id(), -1);
  {
    TokenWriter(folder / "dropped.npy", 300).write({1, 2});
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "dropped.npy"));
}

struct NpyDamage {
  std::string label;
  std::string bytes;    // of the file
  std::string message;  // part of what the error says
};

std::vector<NpyDamage> npy_damages() {
  const auto with = [](const std::string& descr, const std::string& shape) {
    return npy_bytes(npy_fields(descr, shape), "abcdef");
  };
  const auto with_header = [](const std::string& header) { return npy_bytes(header, "abcdef"); };
  const std::string malformed = "its header is not that of a NumPy array";
  const std::string good = with("'<u2'", "(3,)");
  return {
      {"Empty", "", "the file is empty"},
      {"AText", "Once upon a time", "it is not a NumPy file"},
      {"MagicAlone", "\x93NUMPY", "it ends inside its header"},
      {"CutOffInHeader", good.substr(0, 40), "it ends inside its header"},
      {"CutOffInData", good.substr(0, good.size() - 1), "its header promises 3 ids of 2 bytes, but 5 bytes follow"},
      {"TooLong", good + "gh", "promises 3 ids of 2 bytes, but 8 bytes follow"},
      {"LengthHuge", "\x93NUMPY\2\0\xFF\xFF\xFF\xFF{}"s, "it ends inside its header"},
      {"Version0", npy_bytes(npy_fields("'<u2'", "(3,)"), "abcdef", 0), "version 0; versions 1 and 2 can be read"},
      {"Version3", npy_bytes(npy_fields("'<u2'", "(3,)"), "abcdef", 3), "version 3; versions 1 and 2 can be read"},
      {"Int64", with("'<i8'", "(3,)"), "its numbers are \"<i8\", but token ids are uint16 or uint32"},
      {"Float", with("'<f4'", "(3,)"), "its numbers are \"<f4\""},
      {"BigEndian", with("'>u2'", "(3,)"), "its numbers are \">u2\""},
      {"Objects", with("'|O'", "(3,)"), "its numbers are \"|O\""},
      {"Structure", with("[('a', '<u2')]", "(3,)"), "its numbers are \"a structure\""},
      {"Escape", with("'\x1b[31m'", "(3,)"), "its numbers are \"?[31m\""},
      {"NoDimensions", with("'<u2'", "()"), "it has 0 dimensions"},
      {"TwoDimensions", with("'<u2'", "(1, 3)"), "it has 2 dimensions, but token ids have one"},
      {"NoTuple", with("'<u2'", "(3)"), malformed},
      {"CountNegative", with("'<u2'", "(-3,)"), "an impossible size"},
      {"CountOverflows", with("'<u2'", "(99999999999999999999,)"), "an impossible size"},
      {"CountWrapsAround", with("'<u2'", "(9223372036854775807,)"), "promises 9223372036854775807 ids"},
      {"CountTooSmall", with("'<u2'", "(2,)"), "promises 2 ids"},
      {"CountFraction", with("'<u2'", "(3.0,)"), malformed},
      {"DescrMissing", with_header("{'fortran_order': False, 'shape': (3,)}"), "its header has no 'descr'"},
      {"OrderMissing", with_header("{'descr': '<u2', 'shape': (3,)}"), "its header has no 'fortran_order'"},
      {"ShapeMissing", with_header("{'descr': '<u2', 'fortran_order': False}"), "its header has no 'shape'"},
      {"KeyTwice", with_header("{'descr': '<u2', 'descr': '<u2'}"), "its header has 'descr' twice"},
      {"KeyUnknown", with_header("{'size': 3}"), "its header has the unknown key \"size\""},
      {"KeyUnquoted", with_header("{descr: '<u2'}"), malformed},
      {"NotClosed", with_header("{'descr': '<u2'"), malformed},
      {"QuoteNotClosed", with_header("{'descr: <u2"), malformed},
      {"OrderNumber", with_header("{'fortran_order': 0}"), malformed},
      {"HeaderEmpty", with_header(""), malformed},
      {"HeaderZeros", with_header(std::string(64, '\0')), malformed},
      {"HeaderGoesOn", with_header("{'descr': '<u2', 'fortran_order': False, 'shape': (3,)} 4"), malformed},
  };
}

TEST(TokenFileDamage, IsRefused) {
  for (const auto& damage : npy_damages()) {
    SCOPED_TRACE(damage.label);
    const TemporaryFolder folder;
    write_text(folder / "ids.npy", damage.bytes);
    const std::string message = message_of<c10::ValueError>([&] { TokenFile file(folder / "ids.npy"); });
    EXPECT_TRUE(message.starts_with("cannot read " + (folder / "ids.npy").string() + ": ")) << message;
    EXPECT_NE(message.find(damage.message), std::string::npos) << message;
    EXPECT_EQ(message.find_first_of("\n\0\x1b"s), std::string::npos) << message;
  }
}

// Every byte of a good header changed to others: a file is read right or refused, and nothing else happens.
TEST(TokenFile, SurvivesChangedBytes) {
  const std::string good = npy_bytes(npy_fields("'<u2'", "(3,)"), "abcdef");
  int refused = 0;
  for (size_t i = 0; i < good.size(); ++i) {
    for (const char byte : {'\0', '\xFF', '\'', '(', ',', '9', '{', '}', ' '}) {
      std::string bytes = good;
      bytes[i] = byte;
      try {
        const NpyHeader header = parse_npy_header(bytes, "ids.npy");
        EXPECT_EQ(header.data + header.item_size * static_cast<size_t>(header.count), bytes.size());
      } catch (const c10::ValueError&) {
        ++refused;
      }
    }
  }
  EXPECT_GT(refused, 400);
}

// From the specification's and xxhsum's test vectors.
TEST(Xxh64, IsTheStandardOne) {
  EXPECT_EQ(hex64(xxh64("")), "ef46db3751d8e999");
  EXPECT_EQ(hex64(xxh64("a")), "d24ec4f1a98c6e5b");
  EXPECT_EQ(hex64(xxh64("abc")), "44bc2cf5ad770999");
  EXPECT_EQ(hex64(xxh64("Nobody inspects the spammish repetition")), "fbcea83c8a378bf1");
  std::string text;
  for (int i = 0; i < 1000; ++i) text += static_cast<char>(i * 31);
  for (size_t cut = 0; cut <= 100; ++cut) {
    Xxh64 hash;
    hash.update(std::string_view(text).substr(0, cut));
    hash.update(std::string_view(text).substr(cut, 7));
    hash.update(std::string_view(text).substr(cut + 7));
    EXPECT_EQ(hash.digest(), xxh64(text));
  }
}

}  // namespace
}  // namespace optp::testing

#include "src/data/npy_header.h"

#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <charconv>
#include <limits>
#include <optional>

#include "src/checkpoint/safetensors_header.h"

namespace optp {
namespace {

constexpr std::string_view kNpyMagic = "\x93NUMPY";

template <typename... Parts>
[[noreturn]] void refuse_npy(const std::string& file, const Parts&... parts) {
  C10_THROW_ERROR(ValueError, c10::str("cannot read ", file, ": ", parts..., "."));
}

// Reads the header's text, a literal of Python: {'descr': '<u2', 'fortran_order': False, 'shape': (3,), }
class NpyDictionary {
 public:
  NpyDictionary(std::string_view text, const std::string& file) : rest_(text), file_(file) { parse(); }

  std::string descr() const { return needed(descr_, "descr"); }
  int64_t count() const { return needed(count_, "shape"); }

 private:
  void parse() {
    expect('{');
    while (!accept('}')) {
      const std::string key = quoted();
      expect(':');
      if (key == "descr") {
        set(descr_, key, accept('[') ? std::string("a structure") : quoted());
        if (descr_ == "a structure") return;  // refused for its type
      } else if (key == "fortran_order") {
        set(fortran_order_, key, boolean());  // means nothing in one dimension
      } else if (key == "shape") {
        set(count_, key, one_dimension());
      } else {
        refuse_npy(file_, "its header has the unknown key ", shown_name(key));
      }
      if (!accept(',')) {
        expect('}');
        break;
      }
    }
    needed(fortran_order_, "fortran_order");
    skip_space();
    if (!rest_.empty()) malformed();
  }

  template <typename T>
  T needed(const std::optional<T>& value, const char* key) const {
    if (!value) refuse_npy(file_, "its header has no '", key, "'");
    return *value;
  }

  template <typename T>
  void set(std::optional<T>& place, const std::string& key, const T& value) {
    if (place) refuse_npy(file_, "its header has '", key, "' twice");
    place = value;
  }

  std::string quoted() {
    skip_space();
    if (rest_.empty() || (rest_.front() != '\'' && rest_.front() != '"')) malformed();
    const size_t end = rest_.find(rest_.front(), 1);
    if (end == std::string_view::npos) malformed();
    const std::string text(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return text;
  }

  bool boolean() {
    skip_space();
    for (const bool value : {false, true}) {
      const std::string_view word = value ? "True" : "False";
      if (!rest_.starts_with(word)) continue;
      rest_.remove_prefix(word.size());
      return value;
    }
    malformed();
  }

  int64_t one_dimension() {
    expect('(');
    size_t dimensions = 0;
    int64_t size = 0;
    while (!accept(')')) {
      size = number();
      ++dimensions;
      if (!accept(',')) {
        if (dimensions == 1) malformed();  // (3) is no tuple
        expect(')');
        break;
      }
    }
    if (dimensions != 1) refuse_npy(file_, "it has ", dimensions, " dimensions, but token ids have one");
    return size;
  }

  int64_t number() {
    skip_space();
    int64_t value = 0;
    const auto [end, error] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), value);
    if (error == std::errc::result_out_of_range || value < 0) refuse_npy(file_, "its header has an impossible size");
    if (error != std::errc()) malformed();
    rest_.remove_prefix(static_cast<size_t>(end - rest_.data()));
    return value;
  }

  bool accept(char wanted) {
    skip_space();
    if (rest_.empty() || rest_.front() != wanted) return false;
    rest_.remove_prefix(1);
    return true;
  }

  void expect(char wanted) {
    if (!accept(wanted)) malformed();
  }

  void skip_space() {
    const size_t begin = rest_.find_first_not_of(" \n");
    rest_.remove_prefix(begin == std::string_view::npos ? rest_.size() : begin);
  }

  [[noreturn]] void malformed() const { refuse_npy(file_, "its header is not that of a NumPy array"); }

  std::string_view rest_;
  const std::string& file_;
  std::optional<std::string> descr_;
  std::optional<bool> fortran_order_;
  std::optional<int64_t> count_;
};

}  // namespace

NpyHeader parse_npy_header(std::string_view bytes, const std::string& file) {
  const auto byte = [&](size_t i) { return size_t{static_cast<unsigned char>(bytes[i])}; };
  if (!bytes.starts_with(kNpyMagic)) refuse_npy(file, "it is not a NumPy file (.npy), as optp tokenize writes it");
  const size_t version = bytes.size() > kNpyMagic.size() ? byte(6) : 0;
  const size_t fixed = version == 1 ? 10 : 12;
  if (bytes.size() < fixed) refuse_npy(file, "it ends inside its header");
  if (version != 1 && version != 2) {
    refuse_npy(file, "it is a NumPy file of version ", version, "; versions 1 and 2 can be read");
  }
  const size_t length = byte(8) | byte(9) << 8 | (version == 2 ? byte(10) << 16 | byte(11) << 24 : 0);
  if (length > bytes.size() - fixed) refuse_npy(file, "it ends inside its header");

  const NpyDictionary dictionary(bytes.substr(fixed, length), file);
  const std::string descr = dictionary.descr();
  if (descr != "<u2" && descr != "<u4") {
    refuse_npy(file, "its numbers are ", shown_name(descr), ", but token ids are uint16 or uint32 ('<u2', '<u4')");
  }
  NpyHeader header{};
  header.item_size = descr == "<u2" ? 2 : 4;
  header.count = dictionary.count();
  header.data = fixed + length;
  const size_t found = bytes.size() - header.data;
  if (found % header.item_size != 0 || found / header.item_size != static_cast<size_t>(header.count)) {
    refuse_npy(file, "its header promises ", header.count, " ids of ", header.item_size, " bytes, but ", found,
               " bytes follow (is the file truncated?)");
  }
  return header;
}

std::string npy_header(size_t item_size, int64_t count) {
  std::string text = c10::str("{'descr': '<u", item_size, "', 'fortran_order': False, 'shape': (", count, ",), }");
  constexpr size_t kFixed = 10;
  text.resize(kNpyHeaderSize - kFixed - 1, ' ');
  text += '\n';
  std::string header(kNpyMagic);
  header += {'\x01', '\x00', static_cast<char>(text.size()), '\x00'};
  return header + text;
}

}  // namespace optp

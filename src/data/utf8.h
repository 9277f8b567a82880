// UTF-8 as it comes, right or wrong.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace optp {

/// What stands at the beginning of a text.
struct Utf8Unit {
  enum class Kind {
    kCharacter,   ///< a well-formed character
    kInvalid,     ///< bytes that begin no character; W3C's "maximal subpart", one U+FFFD in `tokenizers` and Python
    kIncomplete,  ///< the text ends inside a character
  };
  Kind kind;
  size_t size;  ///< in bytes, 1 to 4
};

/// `text` must not be empty. Surrogates, overlong forms and code points above U+10FFFF are invalid.
Utf8Unit first_utf8_unit(std::string_view text);

/// How long the beginning of `text` is that is well-formed UTF-8.
size_t valid_utf8_size(std::string_view text);

/// How many bytes of a character that goes on end the text: 0 to 3.
size_t incomplete_utf8_size(std::string_view text);

/// The text with U+FFFD in place of every invalid unit, an incomplete one included.
std::string replace_invalid_utf8(std::string_view text);

}  // namespace optp

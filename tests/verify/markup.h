// A strict little reader of XML, for tests of what optp writes: it fails on anything that is not well formed.
#pragma once

#include <map>
#include <string>
#include <vector>

namespace optp {

struct MarkupElement {
  std::string name;
  std::map<std::string, std::string> attributes;  ///< with entities resolved
  std::string text;                               ///< all text within, that of inner elements included
};

/// The elements of a document in the order of their start tags. Throws std::runtime_error with the place when a tag is
/// not closed, a character should have been escaped, or an entity is unknown.
std::vector<MarkupElement> read_markup(const std::string& document);

}  // namespace optp

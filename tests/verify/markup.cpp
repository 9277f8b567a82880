#include "tests/verify/markup.h"

#include <algorithm>
#include <stdexcept>

namespace optp {
namespace {

class MarkupReader {
 public:
  explicit MarkupReader(const std::string& document) : document_(document) {}

  std::vector<MarkupElement> read() {
    while (at_ < document_.size()) {
      if (skip("<?", "?>") || skip("<!DOCTYPE", ">")) continue;
      if (document_.compare(at_, 2, "</") == 0) {
        close();
      } else if (document_[at_] == '<') {
        open();
      } else {
        text();
      }
    }
    need(open_.empty(), "an element is not closed");
    return elements_;
  }

 private:
  void need(bool condition, const std::string& complaint) const {
    if (condition) return;
    throw std::runtime_error(complaint + " at: " + document_.substr(std::min(at_, document_.size()), 60));
  }

  bool skip(const std::string& from, const std::string& to) {
    if (document_.compare(at_, from.size(), from) != 0) return false;
    at_ = document_.find(to, at_);
    need(at_ != std::string::npos, from + " does not end");
    at_ += to.size();
    return true;
  }

  // Characters up to one of `ends`, entities resolved.
  std::string characters(const std::string& ends) {
    static const std::map<std::string, char> kEntities = {
        {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&#39;", '\''}};
    std::string text;
    while (at_ < document_.size() && ends.find(document_[at_]) == std::string::npos) {
      const char c = document_[at_];
      need(c != '<' && (static_cast<unsigned char>(c) >= 0x20 || c == '\n'), "a character that must not stand here");
      if (c != '&') {
        text += c;
        ++at_;
        continue;
      }
      const auto entity = kEntities.find(document_.substr(at_, document_.find(';', at_) - at_ + 1));
      need(entity != kEntities.end(), "an & that is no entity");
      text += entity->second;
      at_ += entity->first.size();
    }
    return text;
  }

  void text() {
    const std::string text = characters("<");
    for (const size_t element : open_) elements_[element].text += text;
    need(!open_.empty() || text.find_first_not_of('\n') == std::string::npos, "text outside all elements");
  }

  std::string name() {
    const size_t begin = at_;
    while (at_ < document_.size() && std::string(" />=\n").find(document_[at_]) == std::string::npos) ++at_;
    need(at_ > begin, "a name is missing");
    return document_.substr(begin, at_ - begin);
  }

  void open() {
    ++at_;
    MarkupElement element;
    element.name = name();
    while (at_ < document_.size() && document_[at_] == ' ') {
      ++at_;
      const std::string key = name();
      need(document_.compare(at_, 2, "=\"") == 0, "an attribute without a value");
      at_ += 2;
      const std::string value = characters("\"");
      ++at_;
      need(element.attributes.emplace(key, value).second, "an attribute given twice");
    }
    const bool empty = document_.compare(at_, 2, "/>") == 0;
    need(empty || document_.compare(at_, 1, ">") == 0, "a tag does not end");
    at_ += empty ? 2 : 1;
    if (!empty) open_.push_back(elements_.size());
    elements_.push_back(element);
  }

  void close() {
    at_ += 2;
    need(!open_.empty() && name() == elements_[open_.back()].name, "an end tag that does not match");
    need(document_.compare(at_, 1, ">") == 0, "an end tag does not end");
    ++at_;
    open_.pop_back();
  }

  const std::string& document_;
  size_t at_ = 0;
  std::vector<size_t> open_;
  std::vector<MarkupElement> elements_;
};

}  // namespace

std::vector<MarkupElement> read_markup(const std::string& document) { return MarkupReader(document).read(); }

}  // namespace optp

// Reading a pickle as data: a machine for the instructions that plain containers need, in which nothing is ever called.
#pragma once

#include <c10/core/ScalarType.h>
#include <c10/util/Exception.h>
#include <c10/util/StringUtil.h>

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <variant>
#include <vector>

#include "src/checkpoint/pickled_state_dict.h"

namespace optp::pickle {

/// A value lives in the unpickler's list of all values; others refer to it by its place there, so cycles do no harm.
using Reference = uint32_t;
using References = std::vector<Reference>;

struct None {};
struct Function {
  std::string_view module, name;
  std::string full() const { return c10::str(module, ".", name); }
};
struct Tuple {
  References items;
};
struct List {
  References items;
};
struct Dict {
  References items;  ///< key, value, key, value, ...
};
struct Storage {
  c10::ScalarType dtype;
  std::string_view key;
  int64_t size;  ///< elements
};
using Value =
    std::variant<None, bool, int64_t, double, std::string_view, Function, Tuple, List, Dict, Storage, PickledTensor>;

/// "a dict", for messages.
const char* kind_of(const Value& value);

/// Runs the instructions (Python's pickletools lists them). What a function stands for is up to the class derived.
/// Errors are c10::ValueError, one sentence that begins with the file.
class Unpickler {
 public:
  /// Views into `bytes` last as long as it does. `file` stands in the messages.
  Unpickler(std::string_view bytes, const std::string& file) : bytes_(bytes), file_(file) {}
  virtual ~Unpickler() = default;

  /// The value that the pickle stands for; lives as long as this object. Call it once.
  const Value& run();

  const Value& at(Reference reference) const { return values_[reference]; }

  template <typename... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    C10_THROW_ERROR(ValueError, c10::str("cannot read ", file_, ": ", parts..., "."));
  }
  template <typename... Parts>
  [[noreturn]] void refuse_here(const Parts&... parts) const {
    refuse(parts..., " at byte ", instruction_);
  }

  template <typename Kind>
  const Kind& as(const Value& value, const char* what) const {
    const Kind* found = std::get_if<Kind>(&value);
    if (found == nullptr) refuse_here("its pickle has ", kind_of(value), " in place of ", what);
    return *found;
  }

 protected:
  /// Whether a pickle may so much as name this function.
  virtual bool knows(const Function& function) const = 0;
  /// What a call of a known function stands for.
  virtual Value call(const Function& function, const References& arguments) const = 0;
  /// What the id of something outside the pickle stands for.
  virtual Value outside(const Tuple& id) const = 0;
  /// What a new object of a known class, made without arguments, stands for. Here: there are none.
  virtual Value new_object(const Function& type) const;
  /// Takes the attributes that the pickle gives to `object`, which may be the same dict. Here: those of an OrderedDict,
  /// in which torch keeps version numbers, are left out, and nothing else may have any.
  virtual void set_attributes(Value& object, const Dict& attributes) const;

 private:
  bool step();
  [[noreturn]] void refuse_instruction(uint8_t code) const;

  std::string_view take(uint64_t size);
  std::string_view line();
  template <typename Number>
  Number number();
  int64_t long_integer(std::string_view digits) const;

  void push(Value value);
  void need(size_t count) const;
  Reference top() const;
  const Value& pop();
  template <typename Kind>
  const Kind& pop(const char* what);
  References pop_last(size_t count);
  References pop_to_mark();
  void recall(uint32_t key);

  template <typename Kind>
  Kind& top_as(const char* what);
  void extend(const References& items);
  const References& pairs(const References& items) const;
  void set_items(const References& items);
  Function known(const Function& function) const;
  void reduce();
  void make_object();

  std::string_view bytes_;
  std::string file_;
  size_t position_ = 0;
  size_t instruction_ = 0;  // where the current one began
  std::vector<Value> values_;
  References stack_;
  std::vector<size_t> marks_;  // heights of the stack
  std::unordered_map<uint32_t, Reference> memo_;
};

}  // namespace optp::pickle

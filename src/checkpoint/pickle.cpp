#include "src/checkpoint/pickle.h"

#include <array>
#include <cstring>
#include <utility>

#include "src/checkpoint/safetensors_header.h"

namespace optp::pickle {

const char* kind_of(const Value& value) {
  constexpr std::array kKinds = {"None",    "a truth value", "an integer", "a number",  "a string", "a function",
                                 "a tuple", "a list",        "a dict",     "a storage", "a tensor"};
  static_assert(kKinds.size() == std::variant_size_v<Value>);
  return kKinds[value.index()];
}

const Value& Unpickler::run() {
  while (!step()) {
  }
  return pop();
}

// Runs one instruction (they are listed in Python's pickletools); true at the last.
bool Unpickler::step() {
  instruction_ = position_;
  switch (const auto code = number<uint8_t>(); code) {
    case 0x80:  // PROTO
      if (const auto version = number<uint8_t>(); version > 5) {
        refuse("its pickle has the protocol ", int{version}, ", above the newest known, 5");
      }
      break;
    case 0x95:  // FRAME
      number<uint64_t>();
      break;
    case '(':  // MARK
      marks_.push_back(stack_.size());
      break;
    case 'N':
      push(None{});
      break;
    case 0x88:  // NEWTRUE
      push(true);
      break;
    case 0x89:  // NEWFALSE
      push(false);
      break;
    case 'K':  // BININT1
      push(int64_t{number<uint8_t>()});
      break;
    case 'M':  // BININT2
      push(int64_t{number<uint16_t>()});
      break;
    case 'J':  // BININT
      push(int64_t{number<int32_t>()});
      break;
    case 0x8A:  // LONG1
      push(long_integer(take(number<uint8_t>())));
      break;
    case 0x8B:  // LONG4
      push(long_integer(take(number<uint32_t>())));
      break;
    case 'G':  // BINFLOAT: no state dict holds numbers that matter
      take(8);
      push(0.0);
      break;
    case 'X':  // BINUNICODE
    case 'T':  // BINSTRING
    case 'B':  // BINBYTES
      push(take(number<uint32_t>()));
      break;
    case 0x8C:  // SHORT_BINUNICODE
    case 'U':   // SHORT_BINSTRING
    case 'C':   // SHORT_BINBYTES
      push(take(number<uint8_t>()));
      break;
    case 0x8D:  // BINUNICODE8
    case 0x8E:  // BINBYTES8
      push(take(number<uint64_t>()));
      break;
    case ')':  // EMPTY_TUPLE
      push(Tuple{});
      break;
    case 't':  // TUPLE
      push(Tuple{pop_to_mark()});
      break;
    case 0x85:  // TUPLE1, TUPLE2, TUPLE3
    case 0x86:
    case 0x87:
      push(Tuple{pop_last(code - size_t{0x84})});
      break;
    case ']':  // EMPTY_LIST
      push(List{});
      break;
    case 'l':  // LIST
      push(List{pop_to_mark()});
      break;
    case 'a':  // APPEND
      extend(pop_last(1));
      break;
    case 'e':  // APPENDS
      extend(pop_to_mark());
      break;
    case '}':  // EMPTY_DICT
      push(Dict{});
      break;
    case 'd':  // DICT
      push(Dict{pairs(pop_to_mark())});
      break;
    case 's':  // SETITEM
      set_items(pop_last(2));
      break;
    case 'u':  // SETITEMS
      set_items(pop_to_mark());
      break;
    case 'q':  // BINPUT
      memo_[number<uint8_t>()] = top();
      break;
    case 'r':  // LONG_BINPUT
      memo_[number<uint32_t>()] = top();
      break;
    case 0x94:  // MEMOIZE
      memo_[static_cast<uint32_t>(memo_.size())] = top();
      break;
    case 'h':  // BINGET
      recall(number<uint8_t>());
      break;
    case 'j':  // LONG_BINGET
      recall(number<uint32_t>());
      break;
    case 'c': {  // GLOBAL
      const std::string_view module = line();
      push(known(Function{module, line()}));
      break;
    }
    case 0x93: {  // STACK_GLOBAL
      const std::string_view name = pop<std::string_view>("the name of a function");
      push(known(Function{pop<std::string_view>("the name of a module"), name}));
      break;
    }
    case 'i': {  // INST
      const std::string_view module = line();
      known(Function{module, line()});
      refuse_instruction(code);
    }
    case 'R':  // REDUCE
      reduce();
      break;
    case 0x81:  // NEWOBJ
      make_object();
      break;
    case 'b': {  // BUILD
      const auto& attributes = pop<Dict>("attributes");
      set_attributes(values_[top()], attributes);
      break;
    }
    case 'Q':  // BINPERSID
      push(outside(pop<Tuple>("what stands for a storage")));
      break;
    case '.':  // STOP
      return true;
    default:
      refuse_instruction(code);
  }
  return false;
}

void Unpickler::refuse_instruction(uint8_t code) const {
  constexpr std::string_view kDigits = "0123456789abcdef";
  refuse("its pickle has the instruction 0x", kDigits[code >> 4], kDigits[code & 15], " at byte ", instruction_,
         ", which tensors and plain containers do not need");
}

// --- The pickle's bytes

std::string_view Unpickler::take(uint64_t size) {
  if (size > bytes_.size() - position_) refuse("its pickle is cut off at byte ", bytes_.size());
  const std::string_view taken = bytes_.substr(position_, size);
  position_ += size;
  return taken;
}

template <typename Number>
Number Unpickler::number() {
  Number result = 0;
  std::memcpy(&result, take(sizeof(result)).data(), sizeof(result));
  return result;
}

std::string_view Unpickler::line() {
  const size_t end = bytes_.find('\n', position_);
  if (end == std::string_view::npos) refuse("its pickle is cut off at byte ", bytes_.size());
  const std::string_view text = take(end - position_);
  ++position_;
  return text;
}

int64_t Unpickler::long_integer(std::string_view digits) const {
  if (digits.size() > sizeof(int64_t)) refuse_here("its pickle has an integer of more than 64 bits");
  if (digits.empty()) return 0;
  int64_t result = static_cast<signed char>(digits.back()) < 0 ? -1 : 0;  // the sign of the highest digit goes on
  std::memcpy(&result, digits.data(), digits.size());
  return result;
}

// --- The stack

void Unpickler::push(Value value) {
  values_.push_back(std::move(value));
  stack_.push_back(static_cast<Reference>(values_.size() - 1));
}

// Items below a mark belong to whoever set it.
void Unpickler::need(size_t count) const {
  if (stack_.size() - (marks_.empty() ? 0 : marks_.back()) < count) {
    refuse_here("its pickle takes more than there is");
  }
}

Reference Unpickler::top() const {
  need(1);
  return stack_.back();
}

const Value& Unpickler::pop() {
  const Reference reference = top();
  stack_.pop_back();
  return at(reference);
}

template <typename Kind>
const Kind& Unpickler::pop(const char* what) {
  const Value& value = pop();
  return as<Kind>(value, what);
}

References Unpickler::pop_last(size_t count) {
  need(count);
  References items(stack_.end() - static_cast<std::ptrdiff_t>(count), stack_.end());
  stack_.resize(stack_.size() - count);
  return items;
}

References Unpickler::pop_to_mark() {
  if (marks_.empty()) refuse_here("its pickle goes back to a mark that was never set");
  const size_t mark = marks_.back();
  References items = pop_last(stack_.size() - mark);
  marks_.pop_back();
  return items;
}

void Unpickler::recall(uint32_t key) {
  const auto found = memo_.find(key);
  if (found == memo_.end()) refuse_here("its pickle recalls what it never stored");
  stack_.push_back(found->second);
}

// --- Containers

template <typename Kind>
Kind& Unpickler::top_as(const char* what) {
  return const_cast<Kind&>(as<Kind>(at(top()), what));
}

void Unpickler::extend(const References& items) {
  References& all = top_as<List>("a list").items;
  all.insert(all.end(), items.begin(), items.end());
}

const References& Unpickler::pairs(const References& items) const {
  if (items.size() % 2 != 0) refuse_here("its pickle has a key without a value");
  return items;  // NOLINT(bugprone-return-const-ref-from-parameter): of an item that outlives the call
}

void Unpickler::set_items(const References& items) {
  References& all = top_as<Dict>("a dict").items;
  all.insert(all.end(), pairs(items).begin(), items.end());
}

// --- Functions: known ones alone, and none of them is called

Function Unpickler::known(const Function& function) const {
  if (!knows(function)) {
    refuse("its pickle asks for ", shown_name(function.full()),
           ", which is neither a tensor nor a plain container; nothing in a pickle is ever run");
  }
  return function;
}

void Unpickler::reduce() {
  constexpr size_t kMostArguments = 8;
  const References& arguments = pop<Tuple>("the arguments of a function").items;
  const auto& function = pop<Function>("a function");
  if (arguments.size() > kMostArguments) {
    refuse_here("its pickle calls ", shown_name(function.full()), " with ", arguments.size(), " arguments");
  }
  push(call(function, arguments));
}

void Unpickler::make_object() {
  const References& arguments = pop<Tuple>("the arguments of a class").items;
  const auto& type = pop<Function>("a class");
  if (!arguments.empty()) {
    refuse_here("its pickle makes an object of ", shown_name(type.full()), " with ", arguments.size(), " arguments");
  }
  push(new_object(type));
}

Value Unpickler::new_object(const Function& /*type*/) const { refuse_instruction(0x81); }

void Unpickler::set_attributes(Value& object, const Dict& /*attributes*/) const {
  if (!std::holds_alternative<Dict>(object)) refuse_here("its pickle gives attributes to ", kind_of(object));
}

}  // namespace optp::pickle

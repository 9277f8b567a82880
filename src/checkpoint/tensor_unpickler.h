// Reading tensors out of a pickle.
#pragma once

#include <cstdint>
#include <vector>

#include "src/checkpoint/pickle.h"
#include "src/checkpoint/pickled_state_dict.h"

namespace optp::pickle {

/// Longest pickle that is read, in bytes; that of OPT-175B has 0.3 MB.
inline constexpr size_t kLongestPickle = size_t{8} << 20;

/// Knows OrderedDict, and what torch makes tensors and parameters of.
class TensorUnpickler : public Unpickler {
 public:
  using Unpickler::Unpickler;

 protected:
  bool knows(const Function& function) const override;
  Value call(const Function& function, const References& arguments) const override;
  Value outside(const Tuple& id) const override;

 private:
  std::vector<int64_t> sizes(const Value& value, const char* what) const;
  PickledTensor tensor(const References& arguments) const;
};

}  // namespace optp::pickle

#include "parallel/collective_check.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <cstring>
#include <vector>

namespace optp {

DisagreementError::DisagreementError(const std::string& own, int64_t rank, const std::string& theirs)
    : DistBackendError({__func__, __FILE__, __LINE__},
                       c10::str("this rank takes part in ", own, " and rank ", rank, " in ", theirs,
                                "; all ranks must make the same calls in the same order")) {}

void check_same_call(c10d::Backend& backend, const std::string& call) {
  constexpr int64_t kLongest = 256;
  at::Tensor own = at::zeros({kLongest}, at::kByte);
  std::memcpy(own.mutable_data_ptr(), call.data(), std::min<size_t>(call.size(), kLongest - 1));
  const at::Tensor all = at::empty({backend.getSize(), kLongest}, at::kByte);
  std::vector<std::vector<at::Tensor>> outputs{all.unbind(0)};
  std::vector<at::Tensor> inputs{own};
  backend.allgather(outputs, inputs)->wait();
  const auto text = [](const at::Tensor& bytes) { return static_cast<const char*>(bytes.const_data_ptr()); };
  for (int64_t rank = 0; rank < backend.getSize(); ++rank) {
    if (std::strcmp(text(own), text(all[rank])) == 0) continue;
    throw DisagreementError(text(own), rank, text(all[rank]));
  }
}

}  // namespace optp

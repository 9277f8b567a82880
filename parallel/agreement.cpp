#include "parallel/agreement.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <new>

namespace optp {
namespace {

// The sentence of what `work` throws; empty if it does not.
std::string error_of(const std::function<void()>& work) {
  const auto sentence = [](const char* text) { return *text != '\0' ? std::string(text) : "unknown error"; };
  try {
    work();
    return "";
  } catch (const c10::Error& error) {
    return sentence(error.what_without_backtrace());
  } catch (const std::bad_alloc&) {
    return "out of memory.";
  } catch (const std::exception& error) {
    return sentence(error.what());
  }
}

}  // namespace

std::vector<std::string> all_gather_text(const std::string& text, const ProcessGroup& group, std::string_view site) {
  if (group.size() == 1) return {text};
  const ShardLayout layout(group.size(), group.size());
  const at::Tensor sizes =
      group.all_gather(at::full({1}, static_cast<int64_t>(text.size()), at::kLong), /*dim=*/0, layout, site);
  const int64_t longest = std::max<int64_t>(1, sizes.max().item<int64_t>());
  at::Tensor padded = at::zeros({1, longest}, at::kByte);
  std::memcpy(padded.mutable_data_ptr(), text.data(), text.size());
  const at::Tensor gathered = group.all_gather(padded, /*dim=*/0, layout, site).contiguous();
  std::vector<std::string> texts;
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    texts.emplace_back(static_cast<const char*>(gathered[rank].const_data_ptr()), sizes[rank].item<int64_t>());
  }
  return texts;
}

void run_on_all(const ProcessGroup& group, std::string_view site, const std::function<void()>& work) {
  if (group.size() == 1) return work();
  const std::vector<std::string> errors = all_gather_text(error_of(work), group, site);
  const auto failed = std::find_if(errors.begin(), errors.end(), [](const std::string& text) { return !text.empty(); });
  if (failed == errors.end()) return;
  const bool alike =
      std::all_of(errors.begin(), errors.end(), [&](const std::string& text) { return text == *failed; });
  TORCH_CHECK_VALUE(false, alike ? "" : c10::str("on rank ", failed - errors.begin(), ": "), *failed);
}

}  // namespace optp

#include "src/inference/perplexity.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace optp {
namespace {

struct Window {
  int64_t start = 0;
  int64_t end = 0;
  int64_t first_scored = 0;  // scored are [first_scored, end)
};

std::vector<Window> windows_of(int64_t total, const PerplexityOptions& options) {
  std::vector<Window> windows;
  int64_t seen = 0;
  for (int64_t start = 0; seen < total; start += options.stride) {
    const int64_t end = std::min(start + options.window, total);
    windows.push_back({start, end, std::max(seen, start + 1)});
    seen = end;
  }
  return windows;
}

// The windows side by side. Padding stands on the right and is not scored; causality keeps it from the real tokens.
void fill_batch(const std::vector<Window>& windows, const TokenReader& read, int64_t pad_id, at::Tensor& ids,
                at::Tensor& targets) {
  int64_t width = 0;
  for (const Window& window : windows) width = std::max(width, window.end - window.start - 1);
  const auto batch = static_cast<int64_t>(windows.size());
  ids = at::full({batch, width}, pad_id, at::kLong);
  targets = at::full({batch, width}, -100, at::kLong);
  for (int64_t row = 0; row < batch; ++row) {
    const Window& window = windows[row];
    const at::Tensor tokens = read(window.start, window.end - window.start);
    const int64_t inputs = tokens.size(0) - 1;
    ids[row].narrow(0, 0, inputs).copy_(tokens.narrow(0, 0, inputs));
    const int64_t skipped = window.first_scored - window.start - 1;
    targets[row].narrow(0, skipped, inputs - skipped).copy_(tokens.slice(0, skipped + 1));
  }
}

}  // namespace

Perplexity evaluate_perplexity(OptForCausalLM& model, const TokenReader& read, int64_t total,
                               const PerplexityOptions& options, const std::function<void(int64_t)>& progress) {
  const OptConfig& config = model->config();
  TORCH_CHECK_VALUE(options.window >= 2 && options.window <= config.max_position_embeddings(), "a window of ",
                    options.window, " tokens does not fit the model; use 2 to ", config.max_position_embeddings(), ".");
  TORCH_CHECK_VALUE(options.stride >= 1 && options.stride <= options.window, "a stride of ", options.stride,
                    " leaves out tokens of windows of ", options.window, " or never moves; use 1 to ", options.window,
                    ".");
  TORCH_CHECK_VALUE(options.batch_size >= 1, "batch-size is ", options.batch_size, "; use at least 1.");
  TORCH_CHECK_VALUE(total >= 2, "a text of ", total, " tokens has nothing to predict; pass two or more.");

  const at::InferenceMode inference;
  // A last window of a single token has nothing to score.
  std::vector<Window> windows = windows_of(total, options);
  if (windows.back().first_scored >= windows.back().end) windows.pop_back();
  const ProcessGroup& copies = model->mesh().data();
  at::Tensor sums = at::zeros({2}, at::kDouble);  // of -log p; of tokens
  const auto pass = static_cast<size_t>(options.batch_size * copies.size());
  for (size_t first = 0; first < windows.size(); first += pass) {
    const size_t begin = std::min(first + options.batch_size * copies.rank(), windows.size());
    const size_t end = std::min(begin + options.batch_size, windows.size());
    if (begin < end) {
      at::Tensor ids, targets;
      fill_batch({windows.begin() + static_cast<int64_t>(begin), windows.begin() + static_cast<int64_t>(end)}, read,
                 config.pad_token_id(), ids, targets);
      const OptOutput output = model->forward(ids, {.targets = targets});
      sums[0] += output.loss_sum.to(at::kDouble);
      sums[1] += targets.ne(-100).sum();
    }
    if (progress) progress(windows[std::min(first + pass, windows.size()) - 1].end);
  }
  copies.all_reduce_(sums, "eval");
  Perplexity result;
  result.tokens = static_cast<int64_t>(sums[1].item<double>());
  result.loss = sums[0].item<double>() / static_cast<double>(result.tokens);
  result.perplexity = std::exp(result.loss);
  return result;
}

}  // namespace optp

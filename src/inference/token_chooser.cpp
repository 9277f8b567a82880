#include "src/inference/token_chooser.h"

#include <ATen/ATen.h>

#include <limits>
#include <utility>

#include "parallel/vocab_parallel_argmax.h"

namespace optp {
namespace {

constexpr const char* kSite = "generate";

}  // namespace

TokenChooser::TokenChooser(ShardLayout vocabulary, ProcessGroup group, at::Tensor forbidden)
    : vocabulary_(vocabulary), group_(std::move(group)), forbidden_(std::move(forbidden)) {}

at::Tensor TokenChooser::choose(at::Tensor scores, const std::vector<std::optional<ChoiceContext>>& contexts,
                                const SamplingOptions& options) const {
  const int64_t first_id = vocabulary_.range(group_.rank()).start;
  const auto rows = static_cast<int64_t>(contexts.size());
  if (forbidden_.defined()) scores.masked_fill_(forbidden_, -std::numeric_limits<double>::infinity());
  if (options.repetition_penalty != 1) {
    for (int64_t row = 0; row < rows; ++row) {
      if (!contexts[row]) continue;
      at::Tensor row_scores = scores[row];
      penalize_repetition_(row_scores, *contexts[row]->ids, options.repetition_penalty, first_id);
    }
  }
  if (options.greedy()) return vocab_parallel_argmax(scores, vocabulary_, group_, kSite);

  scores = group_.all_gather(scores, 1, vocabulary_, kSite);
  at::Tensor next = at::zeros({rows}, at::kLong);
  int64_t* ids = next.data_ptr<int64_t>();
  for (int64_t row = 0; row < rows; ++row) {
    if (contexts[row]) ids[row] = draw_token(warp_scores(scores[row], options), contexts[row]->key);
  }
  return next;
}

}  // namespace optp

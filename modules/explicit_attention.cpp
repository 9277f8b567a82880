#include "modules/explicit_attention.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/function.h>
#include <torch/csrc/autograd/functions/utils.h>
#include <torch/csrc/autograd/saved_variable.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <functional>
#include <limits>
#include <string>
#include <utility>

#include "parallel/dropout.h"

namespace optp {
namespace {

using torch::autograd::SavedVariable;
using torch::autograd::variable_list;

// Scores that exist at once: 32 MiB in float32.
constexpr int64_t kScores = 1 << 23;

// A part of the batch: some heads of one sequence.
struct HeadGroup {
  int64_t sequence, first, size;

  at::Tensor of(const at::Tensor& whole) const { return whole[sequence].narrow(0, first, size); }
};

// The softmax of each query's scores, and which scores do not count.
class Probabilities {
 public:
  Probabilities(AttentionMask mask, std::optional<AttentionDropout> dropout, int64_t tokens)
      : mask_(std::move(mask)), dropout_(dropout) {
    if (!mask_.additive.defined()) future_ = at::ones({tokens, tokens}, at::kBool).triu(/*diagonal=*/1);
  }

  // query, key [h, T, K] -> [h, T, T].
  at::Tensor operator()(const at::Tensor& query, const at::Tensor& key, const HeadGroup& heads) const {
    at::Tensor scores = query.matmul(key.transpose(-1, -2));
    if (mask_.additive.defined()) {
      const at::Tensor additive = mask_.additive[heads.sequence];
      scores = at::where(additive.eq(0), scores, additive);
    } else {
      scores.masked_fill_(future_, -std::numeric_limits<double>::infinity());
    }
    const auto type = scores.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
    return scores.softmax(-1, type);
  }

  // probabilities, or their gradient, [h, T, T] with the mask of dropout.
  at::Tensor dropped(const at::Tensor& probabilities, const HeadGroup& heads) const {
    if (!dropout_) return probabilities;
    return keyed_head_dropout(probabilities.unsqueeze(0), dropout_->p, dropout_->key,
                              dropout_->first_sequence + heads.sequence, dropout_->first_head + heads.first)[0];
  }

  // Scores that were filled have no gradient, even where all of a query's are filled alike.
  void clear_filled(at::Tensor& score_gradient, const HeadGroup& heads) const {
    if (mask_.has_empty_rows) score_gradient.masked_fill_(mask_.additive[heads.sequence].ne(0), 0);
  }

 private:
  AttentionMask mask_;
  std::optional<AttentionDropout> dropout_;
  at::Tensor future_;  // [T, T]
};

void for_head_groups(const at::Tensor& query, const std::function<void(const HeadGroup&)>& body) {
  const int64_t heads = query.size(1), tokens = query.size(2);
  const int64_t size = std::clamp<int64_t>(kScores / (tokens * tokens), 1, heads);
  for (int64_t sequence = 0; sequence < query.size(0); ++sequence) {
    for (int64_t first = 0; first < heads; first += size) body({sequence, first, std::min(size, heads - first)});
  }
}

class ExplicitAttentionBackward : public torch::autograd::Node {
 public:
  ExplicitAttentionBackward(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value, AttentionMask mask,
                            std::optional<AttentionDropout> dropout)
      : query_(query, /*is_output=*/false),
        key_(key, /*is_output=*/false),
        value_(value, /*is_output=*/false),
        mask_(std::move(mask)),
        dropout_(dropout) {}

  variable_list apply(variable_list&& gradients) override {
    TORCH_CHECK(!released_, torch::autograd::ERR_BACKWARD_TWICE);
    if (!gradients[0].defined()) return variable_list(3);
    const at::NoGradGuard no_grad;
    const at::Tensor query = query_.unpack(), key = key_.unpack(), value = value_.unpack();
    const Probabilities probabilities(mask_, dropout_, query.size(2));
    const at::Tensor d_query = at::empty_like(query), d_key = at::empty_like(key), d_value = at::empty_like(value);
    for_head_groups(query, [&](const HeadGroup& heads) {
      const at::Tensor q = heads.of(query), k = heads.of(key), v = heads.of(value);
      const at::Tensor d_output = heads.of(gradients[0]);
      const at::Tensor p = probabilities(q, k, heads);
      heads.of(d_value).copy_(probabilities.dropped(p, heads).to(v.scalar_type()).transpose(-1, -2).matmul(d_output));
      const at::Tensor d_p = probabilities.dropped(d_output.matmul(v.transpose(-1, -2)).to(p.scalar_type()), heads);
      at::Tensor d_scores = at::_softmax_backward_data(d_p, p, -1, p.scalar_type()).to(q.scalar_type());
      probabilities.clear_filled(d_scores, heads);
      heads.of(d_query).copy_(d_scores.matmul(k));
      heads.of(d_key).copy_(d_scores.transpose(-1, -2).matmul(q));
    });
    return {d_query, d_key, d_value};
  }

  void release_variables() override {
    released_ = true;
    for (SavedVariable* saved : {&query_, &key_, &value_}) saved->reset_data();
  }
  std::string name() const override { return "optp::ExplicitAttentionBackward"; }

 private:
  SavedVariable query_, key_, value_;
  AttentionMask mask_;
  std::optional<AttentionDropout> dropout_;
  bool released_ = false;
};

}  // namespace

at::Tensor explicit_attention(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                              const AttentionMask& mask, const std::optional<AttentionDropout>& dropout) {
  const Probabilities probabilities(mask, dropout, query.size(2));
  at::Tensor output;
  {
    const at::NoGradGuard no_grad;
    output = at::empty_like(query);
    for_head_groups(query, [&](const HeadGroup& heads) {
      const at::Tensor p = probabilities(heads.of(query), heads.of(key), heads);
      heads.of(output).copy_(probabilities.dropped(p, heads).to(value.scalar_type()).matmul(heads.of(value)));
    });
  }
  const bool wanted = query.requires_grad() || key.requires_grad() || value.requires_grad();
  if (!at::GradMode::is_enabled() || !wanted) return output;
  auto node = c10::make_intrusive<ExplicitAttentionBackward>(query, key, value, mask, dropout);
  node->set_next_edges(torch::autograd::collect_next_edges(query, key, value));
  torch::autograd::set_history(output, c10::intrusive_ptr<torch::autograd::Node>(std::move(node)));
  return output;
}

}  // namespace optp

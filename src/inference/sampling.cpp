#include "src/inference/sampling.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <set>

namespace optp {
namespace {

constexpr double kNever = -std::numeric_limits<double>::infinity();

// How many of the scores, sorted upwards, the likeliest set of probability top_p holds. A token stays if those above it
// have not reached top_p yet, so at least one stays. Nothing if more scores are needed to tell.
std::optional<int64_t> kept_by_top_p(const at::Tensor& sorted, double top_p, double log_of_sum) {
  const at::Tensor probabilities = sorted.to(at::kDouble).sub(log_of_sum).exp();
  const double* p = probabilities.const_data_ptr<double>();
  const int64_t count = probabilities.numel();
  double above = 0;
  for (int64_t kept = 0; kept < count; ++kept) {
    if (above >= top_p && kept > 0) return kept;
    above += p[count - 1 - kept];
  }
  return above >= top_p ? std::optional(count) : std::nullopt;
}

at::Tensor keep_top_p(const at::Tensor& scores, double top_p) {
  const double log_of_sum = scores.to(at::kDouble).logsumexp(0).item<double>();
  // A few hundred tokens nearly always hold the probability that counts: sorting all is the exception.
  for (int64_t size = std::min<int64_t>(256, scores.numel());; size = scores.numel()) {
    const at::Tensor last = std::get<0>(scores.topk(size))[-1];
    const at::Tensor ids = scores.ge(last).nonzero().squeeze(1);
    // Of tokens that tie at the limit those with the larger ids stay, as in transformers.
    const auto [sorted, order] = scores.gather(0, ids).sort(/*stable=*/true, /*dim=*/0, /*descending=*/false);
    std::optional<int64_t> kept = kept_by_top_p(sorted, top_p, log_of_sum);
    if (!kept && size < scores.numel()) continue;
    const at::Tensor kept_ids =
        ids.gather(0, order.narrow(0, order.numel() - kept.value_or(order.numel()), kept.value_or(order.numel())));
    return at::full_like(scores, kNever).scatter_(0, kept_ids, scores.gather(0, kept_ids));
  }
}

}  // namespace

void SamplingOptions::validate() const {
  TORCH_CHECK_VALUE(std::isfinite(temperature) && temperature >= 0, "temperature ", temperature,
                    " makes no sense; use 0 for the likeliest token, or a number above 0.");
  TORCH_CHECK_VALUE(top_k >= 0, "top-k ", top_k, " makes no sense; use 0 for all tokens, or a number above 0.");
  TORCH_CHECK_VALUE(top_p > 0 && top_p <= 1, "top-p ", top_p, " is no probability; use a number in (0, 1].");
  TORCH_CHECK_VALUE(std::isfinite(repetition_penalty) && repetition_penalty > 0, "repetition-penalty ",
                    repetition_penalty, " makes no sense; use 1 for none, or a number above 1.");
}

void penalize_repetition_(at::Tensor& scores, const std::vector<int64_t>& context, double penalty, int64_t first_id) {
  if (penalty == 1) return;
  std::vector<int64_t> local;
  for (const int64_t id : std::set<int64_t>(context.begin(), context.end())) {
    if (id >= first_id && id < first_id + scores.numel()) local.push_back(id - first_id);
  }
  const at::Tensor ids = at::tensor(local, at::kLong);
  const at::Tensor occurred = scores.gather(0, ids);
  scores.scatter_(0, ids, at::where(occurred.lt(0), occurred * penalty, occurred / penalty));
}

at::Tensor warp_scores(const at::Tensor& scores, const SamplingOptions& options) {
  at::Tensor warped = scores / options.temperature;
  if (options.top_k > 0 && options.top_k < warped.numel()) {
    const at::Tensor last = std::get<0>(warped.topk(options.top_k))[-1];
    warped.masked_fill_(warped.lt(last), kNever);
  }
  return options.top_p < 1 ? keep_top_p(warped, options.top_p) : warped;
}

int64_t draw_token(const at::Tensor& scores, const RandomKey& key) {
  const at::Tensor values = scores.to(at::kDouble).contiguous();
  const double* score = values.const_data_ptr<double>();
  std::vector<uint32_t> bits(scores.numel());
  draw_bits(key, 0, scores.numel(), bits.data());
  int64_t best = 0;
  double highest = kNever;
  for (int64_t id = 0; id < scores.numel(); ++id) {
    if (score[id] == kNever) continue;
    const double uniform = (static_cast<double>(bits[id]) + 0.5) * 0x1p-32;
    const double noisy = score[id] - std::log(-std::log(uniform));
    if (noisy > highest) {
      highest = noisy;
      best = id;
    }
  }
  return best;
}

}  // namespace optp

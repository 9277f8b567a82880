#include "parallel/gradients.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/node.h>
#include <torch/csrc/autograd/utils/lambda_post_hook.h>
#include <torch/csrc/autograd/variable.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "parallel/square_sum.h"

namespace optp {
namespace {

using torch::autograd::Node;
using torch::autograd::variable_list;

// Gradients start at multiples of this many elements, so that vector instructions find them aligned.
constexpr int64_t kAlignment = 16;
constexpr std::string_view kSite = "gradients";

int64_t aligned(int64_t elements) { return (elements + kAlignment - 1) / kAlignment * kAlignment; }

at::ScalarType gradient_type(at::ScalarType parameter) {
  return at::isReducedFloatingType(parameter) ? at::kFloat : parameter;
}

}  // namespace

struct Gradients::State {
  // What is known of a parameter's gradient beside what everyone may see of it.
  struct Progress {
    c10::intrusive_ptr<Node> accumulator;  // keeps the hook alive
    uintptr_t hook = 0;
    size_t bucket = 0;
    bool filled = false;   // the buffer holds gradients of this step
    int64_t arrivals = 0;  // in the backward that reduces
    int64_t expected = 0;  // the most arrivals in such a backward so far
    at::Tensor late;       // came after the bucket had left
  };

  struct Bucket {
    at::Tensor buffer;            // [elements]
    std::vector<size_t> members;  // indices of parameters
    int64_t incomplete = 0;       // members whose gradient is still to come
    bool left = false;            // its reduction has started
    PendingCollective reduction;
  };

  explicit State(Mesh step_mesh) : mesh(std::move(step_mesh)) {}

  void add_parameter(const NamedShard& entry);
  void make_buckets(int64_t limit);
  void on_gradient(size_t index);
  void start(Bucket& bucket);
  void start_complete_buckets();
  void reduce_late();
  at::Tensor flags() const;

  Mesh mesh;
  std::vector<TrainedParameter> parameters;
  std::vector<Progress> progress;  // of the parameter with the same index
  std::vector<Bucket> buckets;     // in the order in which they leave
  size_t next = 0;                 // the first bucket that has not left
  bool reducing = false;
  bool learned = false;  // `expected` has been seen
};

void Gradients::State::add_parameter(const NamedShard& entry) {
  TORCH_CHECK_VALUE(entry.tensor.is_contiguous() && at::isFloatingType(entry.tensor.scalar_type()), "parameter ",
                    entry.name, " cannot be trained: it is ", entry.tensor.scalar_type(), " with strides ",
                    entry.tensor.strides(), "; make it floating-point and contiguous, or freeze it.");
  const size_t index = parameters.size();
  parameters.push_back({entry.name, entry.tensor, entry.shard, {}, false});
  Progress& added = progress.emplace_back();
  added.accumulator = torch::autograd::impl::grad_accumulator(entry.tensor);
  added.hook = added.accumulator->add_post_hook(std::make_unique<torch::autograd::utils::LambdaPostHook>(
      [this, index](const variable_list& outputs, const variable_list& /*inputs*/) {
        on_gradient(index);
        return outputs;
      }));
}

void Gradients::State::make_buckets(int64_t limit) {
  const auto options = [&](size_t index) {
    const at::Tensor& parameter = parameters[index].parameter;
    return parameter.options().dtype(gradient_type(parameter.scalar_type())).requires_grad(false);
  };
  int64_t bytes = limit;
  for (size_t i = parameters.size(); i-- > 0;) {
    const int64_t item = static_cast<int64_t>(options(i).dtype().itemsize());
    const int64_t needed = aligned(parameters[i].parameter.numel()) * item;
    if (buckets.empty() || bytes + needed > limit || options(i).dtype() != options(i + 1).dtype()) {
      buckets.emplace_back();
      bytes = 0;
    }
    buckets.back().members.push_back(i);
    bytes += needed;
  }
  for (size_t b = 0; b < buckets.size(); ++b) {
    Bucket& bucket = buckets[b];
    int64_t elements = 0;
    for (const size_t i : bucket.members) elements += aligned(parameters[i].parameter.numel());
    if (b + 1 == buckets.size()) elements += static_cast<int64_t>(2 * parameters.size());  // see flags()
    bucket.buffer = at::zeros({elements}, options(bucket.members.front()));
    int64_t start = 0;
    for (const size_t i : bucket.members) {
      progress[i].bucket = b;
      const at::Tensor& parameter = parameters[i].parameter;
      parameters[i].gradient = bucket.buffer.narrow(0, start, parameter.numel()).view(parameter.sizes());
      start += aligned(parameter.numel());
    }
  }
}

// Runs after autograd has put a gradient into `.grad`.
void Gradients::State::on_gradient(size_t index) {
  const at::NoGradGuard no_grad;
  const at::Tensor& buffer = parameters[index].gradient;
  at::Tensor& grad = parameters[index].parameter.mutable_grad();
  Progress& now = progress[index];
  Bucket& bucket = buckets[now.bucket];
  ++now.arrivals;
  if (bucket.left) {
    // The buffer belongs to the reduction, which is why start() took `.grad` away.
    now.late = now.late.defined() ? now.late.add_(grad) : grad.to(buffer.scalar_type());
    grad.reset();
    return;
  }
  if (!now.filled) {
    buffer.copy_(grad);
    now.filled = true;
  } else if (!grad.is_same(buffer)) {
    buffer.add_(grad);
  }
  grad = grad.scalar_type() == buffer.scalar_type() ? buffer : at::Tensor();
  if (reducing && now.arrivals == now.expected) {
    --bucket.incomplete;
    start_complete_buckets();
  }
}

void Gradients::State::start(Bucket& bucket) {
  for (const size_t i : bucket.members) {
    if (!progress[i].filled) parameters[i].gradient.zero_();
    parameters[i].parameter.mutable_grad().reset();
  }
  bucket.left = true;
  bucket.reduction = mesh.data().start_all_reduce_(bucket.buffer, kSite);
}

// The last bucket carries the flags, which are known in finish() only. It has the gradients that come last.
void Gradients::State::start_complete_buckets() {
  while (next + 1 < buckets.size() && buckets[next].incomplete == 0) start(buckets[next++]);
}

// Two numbers for each parameter at the end of the last bucket. Added over the copies they say on how many of them
// backward reached the parameter, and on how many it did so after the parameter's bucket had left.
at::Tensor Gradients::State::flags() const {
  const auto count = static_cast<int64_t>(parameters.size());
  return buckets.back().buffer.narrow(0, buckets.back().buffer.numel() - 2 * count, 2 * count).view({2, count});
}

void Gradients::State::reduce_late() {
  const at::Tensor late = flags()[1].to(at::kDouble);
  const double* copies = late.const_data_ptr<double>();
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (copies[i] == 0) continue;
    at::Tensor& own = progress[i].late;
    at::Tensor sum = own.defined() ? own.contiguous() : at::zeros_like(parameters[i].gradient);
    mesh.data().all_reduce_(sum, kSite);
    parameters[i].gradient.add_(sum);
    own.reset();
  }
}

Gradients::Gradients(const std::vector<NamedShard>& parameters, const Mesh& mesh)
    : Gradients(parameters, mesh, Options()) {}

Gradients::Gradients(const std::vector<NamedShard>& parameters, const Mesh& mesh, const Options& options)
    : state_(std::make_unique<State>(mesh)) {
  std::set<const c10::TensorImpl*> seen;
  for (const NamedShard& entry : parameters) {
    if (entry.tensor.requires_grad() && seen.insert(entry.tensor.unsafeGetTensorImpl()).second) {
      state_->add_parameter(entry);
    }
  }
  TORCH_CHECK_VALUE(!state_->parameters.empty(), "none of the model's ", parameters.size(),
                    " parameters requires a gradient, so there is nothing to train; freeze fewer.");
  state_->make_buckets(options.bucket_bytes);
  start_step();
}

Gradients::~Gradients() {
  start_step();
  for (const State::Progress& entry : state_->progress) entry.accumulator->del_post_hook(entry.hook);
}

void Gradients::start_step() {
  State& state = *state_;
  state.next = 0;
  state.reducing = false;
  for (State::Bucket& bucket : state.buckets) bucket.left = false;
  for (size_t i = 0; i < state.parameters.size(); ++i) {
    state.parameters[i].parameter.mutable_grad().reset();
    state.parameters[i].has_gradient = false;
    state.progress[i].filled = false;
    state.progress[i].late.reset();
  }
}

void Gradients::reduce_in_next_backward() {
  const at::NoGradGuard no_grad;
  State& state = *state_;
  state.reducing = true;
  for (State::Progress& entry : state.progress) entry.arrivals = 0;
  if (!state.learned) {
    for (State::Bucket& bucket : state.buckets) bucket.incomplete = static_cast<int64_t>(bucket.members.size());
    return;
  }
  for (State::Bucket& bucket : state.buckets) {
    bucket.incomplete = std::count_if(bucket.members.begin(), bucket.members.end(),
                                      [&](size_t i) { return state.progress[i].expected > 0; });
  }
  state.start_complete_buckets();
}

GradientTotals Gradients::finish(at::ArrayRef<double> sums) {
  const at::NoGradGuard no_grad;
  State& state = *state_;
  const size_t count = state.parameters.size();
  std::vector<float> flags(2 * count);
  for (size_t i = 0; i < count; ++i) {
    const bool late = state.progress[i].late.defined();
    flags[i] = state.progress[i].filled || late ? 1 : 0;
    flags[count + i] = late ? 1 : 0;
  }
  state.flags().copy_(at::from_blob(flags.data(), state.flags().sizes(), at::kFloat));
  while (state.next < state.buckets.size()) state.start(state.buckets[state.next++]);
  for (State::Bucket& bucket : state.buckets) bucket.reduction.wait();
  state.reduce_late();

  const at::Tensor reached = state.flags()[0].to(at::kDouble);
  double sharded = 0;
  double replicated = 0;
  for (size_t i = 0; i < count; ++i) {
    TrainedParameter& entry = state.parameters[i];
    State::Progress& progress = state.progress[i];
    if (state.reducing) progress.expected = std::max(progress.expected, progress.arrivals);
    entry.has_gradient = reached.const_data_ptr<double>()[i] > 0;
    if (!entry.has_gradient) continue;
    if (entry.parameter.scalar_type() == entry.gradient.scalar_type()) entry.parameter.mutable_grad() = entry.gradient;
    (entry.shard.replicated() ? replicated : sharded) += square_sum(entry.gradient);
  }
  state.learned = state.learned || state.reducing;
  state.reducing = false;

  // The copies hold the same gradient: the first alone counts, and of that the first rank for what all hold.
  const bool first_copy = state.mesh.data().rank() == 0;
  std::vector<double> totals{first_copy ? sharded + (state.mesh.tensor().rank() == 0 ? replicated : 0) : 0,
                             std::isfinite(sharded + replicated) ? 0.0 : 1.0};
  totals.insert(totals.end(), sums.begin(), sums.end());
  at::Tensor shared = at::from_blob(totals.data(), {static_cast<int64_t>(totals.size())}, at::kDouble);
  state.mesh.world().all_reduce_(shared, "gradient norm");

  GradientTotals result{std::sqrt(totals[0]), totals[1] == 0, {totals.begin() + 2, totals.end()}};
  result.finite = result.finite && std::isfinite(result.norm) &&
                  std::all_of(result.sums.begin(), result.sums.end(), [](double sum) { return std::isfinite(sum); });
  return result;
}

double Gradients::clip(double norm, double max_norm) {
  const at::NoGradGuard no_grad;
  const double factor = std::min(1.0, max_norm / (norm + 1e-6));
  if (factor < 1) {
    for (State::Bucket& bucket : state_->buckets) bucket.buffer.mul_(factor);
  }
  return factor;
}

const std::vector<TrainedParameter>& Gradients::parameters() const { return state_->parameters; }

int64_t Gradients::bytes() const {
  int64_t total = 0;
  for (const State::Bucket& bucket : state_->buckets) total += static_cast<int64_t>(bucket.buffer.nbytes());
  return total;
}

int64_t Gradients::buckets() const { return static_cast<int64_t>(state_->buckets.size()); }

}  // namespace optp

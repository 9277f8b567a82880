#include "src/verify/session.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <thread>

#include "parallel/random.h"
#include "src/verify/allocation_tracker.h"
#include "src/verify/faults.h"

namespace optp {
namespace {

// Fresh weights that make every part of the model count and leave nothing for rounding to decide. As they are drawn for
// training, biases are 0 and layer norms 1, which would hide a bias added twice or left out; queries and keys are so
// small that attention is uniform and its gradients drown in rounding; and among millions of ReLUs some have an input
// so close to 0 that rounding decides their derivative. Here biases and layer norms vary, positions tell the tokens
// apart, attention is far from uniform, and each unit of the feed-forward is clearly on or off.
void draw_telling_weights(const std::vector<NamedShard>& parameters, const VerifyOptions& options) {
  at::NoGradGuard no_grad;
  const RandomKey key = RandomKey(options.seed).with("verify");
  // fc1's inputs come from a layer norm: its sums over hidden_size have a standard deviation of 1/8, its biases are
  // near 1.
  const double fc1_std = 0.125 / std::sqrt(static_cast<double>(options.source.config.hidden_size()));
  const std::vector<std::pair<std::string, double>> stds = {
      {"embed_positions.weight", 0.3}, {".q_proj.weight", 0.06}, {".k_proj.weight", 0.06},
      {".fc1.weight", fc1_std},        {".fc2.weight", 0.004},   {"", 0.02},
  };
  for (const NamedShard& entry : parameters) {
    const auto std =
        std::find_if(stds.begin(), stds.end(), [&](const auto& s) { return entry.name.ends_with(s.first); });
    // In bfloat16 only the sum is rounded, so that the reference starts from the same numbers.
    const bool rounds = entry.tensor.scalar_type() == at::kBFloat16;
    at::Tensor tensor = rounds ? at::empty(entry.tensor.sizes(), at::kFloat) : entry.tensor;
    fill_normal(tensor, entry.shard, key.with(entry.name), std->second);
    if (entry.name.ends_with("layer_norm.weight")) tensor.add_(1);
    if (entry.name.ends_with(".fc1.bias")) tensor.add_(tensor.sign());
    if (rounds) entry.tensor.copy_(tensor);
  }
}

// Puts the parameters at their starting weights, without gradients. The first time these are loaded; a copy in `kept`
// serves from then on.
void start(const std::vector<NamedShard>& parameters, const VerifyOptions& options, std::vector<at::Tensor>& kept) {
  at::NoGradGuard no_grad;
  for (const NamedShard& entry : parameters) entry.tensor.mutable_grad().reset();
  if (!kept.empty()) {
    for (size_t i = 0; i < parameters.size(); ++i) parameters[i].tensor.copy_(kept[i]);
    return;
  }
  if (options.source.path) {
    options.source.load_weights(parameters, options.seed);
  } else {
    draw_telling_weights(parameters, options);
  }
  if (options.type == at::kBFloat16) {
    for (const NamedShard& entry : parameters) entry.tensor.copy_(entry.tensor.to(at::kBFloat16));
  }
  if (options.checks.size() == 1 && options.checks[0] != "optimizers") return;  // started once only
  for (const NamedShard& entry : parameters) kept.push_back(entry.tensor.clone());
}

// Runs `body` while the other ranks wait in a broadcast and need no core.
void with_all_cores(const std::function<void()>& body) {
  const int threads = at::get_num_threads();
  at::set_num_threads(std::max(threads, static_cast<int>(std::thread::hardware_concurrency())));
  body();
  at::set_num_threads(threads);
}

}  // namespace

Session::Session(const VerifyOptions& options, const Mesh& mesh) : options_(options), mesh_(mesh) {
  const auto& checks = options.checks;
  std::optional<AnonymousGrowth> growth;
  if (std::find(checks.begin(), checks.end(), "memory") != checks.end()) growth.emplace();
  model_bytes_ = bytes_left_by([&] { model_ = OptForCausalLM(config(), mesh, options.type); });
  shards_ = named_shards(*model_);
  if (!options.fault.empty()) install_fault(options.fault, options.fault_layer, options.sequence_parallel, model_);
  const int64_t gradient_bytes = bytes_left_by([&] { gradients_ = std::make_unique<Gradients>(shards_, mesh_); });
  if (!options.fault.empty()) install_gradient_fault(options.fault, model_, *gradients_);
  if (growth) memory_trial_ = try_memory(*this, *growth, gradient_bytes);
  if (world().rank() == 0) {
    reference_ = OptReference(config());
    reference_->to(in_bfloat16() ? at::kFloat : options.type);
    whole_ = named_shards(*reference_);
    if (in_bfloat16()) {
      bfloat16_reference_ = OptReference(config());
      bfloat16_reference_->to(at::kBFloat16);
    }
  }
}

void Session::with_reference(const std::function<void(OptReferenceImpl&)>& body) {
  if (has_reference()) with_all_cores([&] { body(*reference_); });
}

void Session::with_bfloat16_reference(const std::function<void(OptReferenceImpl&)>& body) {
  if (!bfloat16_reference_.is_empty()) with_all_cores([&] { body(*bfloat16_reference_); });
}

at::Tensor Session::gradient(size_t i) const {
  const TrainedParameter& trained = gradients_->parameters().at(i);
  TORCH_CHECK(trained.name == shards_.at(i).name, trained.name, " is trained where ", shards_[i].name, " is expected.");
  return trained.has_gradient ? trained.gradient : at::Tensor();
}

at::Tensor Session::from_reference(const at::Tensor& value, at::IntArrayRef shape) {
  at::Tensor tensor =
      has_reference() ? value.detach().contiguous() : at::empty(shape, in_bfloat16() ? at::kFloat : options_.type);
  TORCH_CHECK(tensor.sizes() == shape, "the reference has ", tensor.sizes(), " where ", shape, " is expected.");
  world().broadcast_(tensor, 0, "verify reference");
  return tensor;
}

double Session::from_reference(double value) {
  at::Tensor tensor = at::scalar_tensor(value, at::kDouble);
  world().broadcast_(tensor, 0, "verify reference");
  return tensor.item<double>();
}

void Session::reset_weights() {
  start(shards_, options_, starting_shards_);
  if (has_reference()) start(whole_, options_, starting_whole_);
  with_bfloat16_reference([&](OptReferenceImpl& rounded) {
    const at::NoGradGuard no_grad;
    for (auto& parameter : rounded.named_parameters()) {
      parameter.value().mutable_grad().reset();
      parameter.value().copy_(reference_->named_parameters()[parameter.key()]);
    }
  });
  if (!options_.fault.empty()) damage_weights(options_.fault, options_.fault_layer, model_);
}

Batch Session::batch(int64_t index, int64_t sequences, int64_t tokens) const {
  return batch(index, sequences, tokens, config().vocab_size());
}

Batch Session::training_batch(int64_t index) const {
  const int64_t words = std::clamp<int64_t>(config().vocab_size() / 16, 2, 8);
  return batch(index, options_.batch_size, options_.seq_len, words);
}

Batch Session::batch(int64_t index, int64_t sequences, int64_t tokens, int64_t words) const {
  Batch batch;
  const int64_t size = sequences * tokens;
  if (options_.text.empty()) {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(options_.seed * 1000003 + static_cast<uint64_t>(index));
    batch.input_ids = at::randint(words, {sequences, tokens}, generator, at::kLong);
    // Fewer words than the vocabulary has lie apart from each other, so that every rank owns some.
    batch.input_ids.mul_(config().vocab_size() / words);
  } else {
    batch.input_ids = at::empty({sequences, tokens}, at::kLong);
    const auto length = static_cast<int64_t>(options_.text.size());
    auto* ids = batch.input_ids.data_ptr<int64_t>();
    for (int64_t i = 0; i < size; ++i) ids[i] = options_.text[(index * size + i) % length];
  }
  batch.attention_mask = at::ones_like(batch.input_ids);
  batch.labels = batch.input_ids;
  return batch;
}

OptForwardOptions Session::forward_options(const at::Tensor& attention_mask) const {
  OptForwardOptions options;
  options.attention_mask = attention_mask;
  options.sequence_parallel = options_.sequence_parallel;
  options.activation_checkpointing = options_.activation_checkpointing;
  return options;
}

double Session::model_loss(const Batch& batch) {
  const ProcessGroup& copies = mesh_.data();
  const Range part = ShardLayout(batch.input_ids.size(0), copies.size()).range(copies.rank());
  const int64_t rows = options_.micro_batch_size > 0 ? std::min(options_.micro_batch_size, part.size) : part.size;
  // Token t predicts token t + 1, and the last one nothing.
  const at::Tensor targets = at::constant_pad_nd(batch.labels.slice(1, 1), {0, 1}, -100);
  const auto counted = targets.ne(-100).sum().item<double>();
  double loss = 0;
  gradients_->start_step();
  for (int64_t first = part.start; first < part.end(); first += rows) {
    const int64_t count = std::min(rows, part.end() - first);
    const bool last = first + count == part.end();
    if (last) gradients_->reduce_in_next_backward();
    OptForwardOptions options = forward_options(batch.attention_mask.narrow(0, first, count));
    options.targets = targets.narrow(0, first, count);
    const at::Tensor share = model_->forward(batch.input_ids.narrow(0, first, count), options).loss_sum / counted;
    loss += share.item<double>();
    if (!loses_micro_batch(options_.fault) || last) share.backward();
  }
  const GradientTotals totals = gradients_->finish({mesh_.tensor().rank() == 0 ? loss : 0.0});
  gradient_norm_ = totals.norm;
  return totals.sums[0];
}

double Session::reference_loss(const Batch& batch) {
  double loss = 0;
  with_reference([&](OptReferenceImpl& reference) {
    reference.zero_grad();
    const auto output = reference.forward(batch.input_ids, batch.attention_mask, batch.labels);
    output.loss.backward();
    loss = output.loss.item<double>();
  });
  return from_reference(loss);
}

std::vector<Difference> Session::compare_parameters() {
  return compare([&](size_t i) { return shards_[i].tensor; }, [](const at::Tensor& parameter) { return parameter; });
}

std::vector<Difference> Session::compare_gradients() {
  return compare([&](size_t i) { return gradient(i); }, [](const at::Tensor& parameter) { return parameter.grad(); });
}

std::vector<Difference> Session::compare(const std::function<at::Tensor(size_t)>& actual,
                                         const std::function<at::Tensor(const at::Tensor&)>& reference_part) {
  torch::OrderedDict<std::string, at::Tensor> whole;
  if (has_reference()) whole = reference_->named_parameters();
  std::vector<Difference> differences;
  for (size_t i = 0; i < shards_.size(); ++i) {
    const NamedShard& entry = shards_[i];
    const at::Tensor expected =
        from_reference(has_reference() ? reference_part(whole[entry.name]) : at::Tensor(), entry.shard.shape);
    Difference difference;
    difference.add(actual(i), entry.shard.slice(expected));
    // Relative to the whole tensor, not to this rank's part of it.
    difference.max_expected = expected.abs().amax().item<double>();
    differences.push_back(difference);
  }
  return max_over_ranks(differences, world());
}

}  // namespace optp

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
    at::Tensor tensor = entry.tensor;
    fill_normal(tensor, entry.shard, key.with(entry.name), std->second);
    if (entry.name.ends_with("layer_norm.weight")) tensor.add_(1);
    if (entry.name.ends_with(".fc1.bias")) tensor.add_(tensor.sign());
  }
}

void load_starting_weights(const std::vector<NamedShard>& parameters, const VerifyOptions& options) {
  if (options.source.directory) {
    options.source.load_weights(parameters, options.seed);
  } else {
    draw_telling_weights(parameters, options);
  }
  for (const NamedShard& entry : parameters) entry.tensor.mutable_grad().reset();
}

}  // namespace

Session::Session(const VerifyOptions& options, const Mesh& mesh) : options_(options), mesh_(mesh) {
  model_bytes_ = bytes_left_by([&] { model_ = OptForCausalLM(config(), mesh, options.type); });
  shards_ = named_shards(*model_);
  if (world().rank() == 0) {
    reference_ = OptReference(config());
    reference_->to(options.type);
  }
  if (!options.fault.empty()) install_fault(options.fault, options.fault_layer, model_);
}

void Session::with_reference(const std::function<void(OptReferenceImpl&)>& body) {
  if (!has_reference()) return;
  // The other ranks wait in a broadcast meanwhile and need no core.
  const int threads = at::get_num_threads();
  at::set_num_threads(std::max(threads, static_cast<int>(std::thread::hardware_concurrency())));
  body(*reference_);
  at::set_num_threads(threads);
}

at::Tensor Session::from_reference(const at::Tensor& value, at::IntArrayRef shape) {
  at::Tensor tensor = has_reference() ? value.detach().contiguous() : at::empty(shape, options_.type);
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
  load_starting_weights(shards_, options_);
  if (has_reference()) load_starting_weights(named_shards(*reference_), options_);
  if (!options_.fault.empty()) damage_weights(options_.fault, options_.fault_layer, model_);
}

Batch Session::batch(int64_t index, int64_t sequences, int64_t tokens) const {
  Batch batch;
  const int64_t size = sequences * tokens;
  if (options_.text.empty()) {
    auto generator = at::make_generator<at::CPUGeneratorImpl>(options_.seed * 1000003 + static_cast<uint64_t>(index));
    batch.input_ids = at::randint(config().vocab_size(), {sequences, tokens}, generator, at::kLong);
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

double Session::model_loss(const Batch& batch) {
  for (const NamedShard& entry : shards_) entry.tensor.mutable_grad().reset();
  const OptOutput output = model_->forward(
      batch.input_ids, {.attention_mask = batch.attention_mask, .labels = batch.labels, .gather_logits = false});
  output.loss.backward();
  return output.loss.item<double>();
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
  return compare([](const at::Tensor& parameter) { return parameter; });
}

std::vector<Difference> Session::compare_gradients() {
  return compare([](const at::Tensor& parameter) { return parameter.grad(); });
}

std::vector<Difference> Session::compare(const std::function<at::Tensor(const at::Tensor&)>& part) {
  torch::OrderedDict<std::string, at::Tensor> whole;
  if (has_reference()) whole = reference_->named_parameters();
  std::vector<Difference> differences;
  for (const NamedShard& entry : shards_) {
    const at::Tensor expected =
        from_reference(has_reference() ? part(whole[entry.name]) : at::Tensor(), entry.shard.shape);
    Difference difference;
    difference.add(part(entry.tensor), entry.shard.slice(expected));
    // Relative to the whole tensor, not to this rank's part of it.
    difference.max_expected = expected.abs().amax().item<double>();
    differences.push_back(difference);
  }
  return max_over_ranks(differences, world());
}

}  // namespace optp

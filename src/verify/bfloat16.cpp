#include "src/verify/bfloat16.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <utility>

namespace optp {
namespace {

using WholeTensors = std::map<std::string, at::Tensor>;

// How far one tensor of the model is from float32's, in 2-norms over the whole tensor.
struct TensorDistance {
  double sharded = 0;   // of the sharded model
  double rounded = 0;   // of the reference in bfloat16
  double expected = 0;  // the norm of the tensor itself
};

// For each of shards(). `actual`: local parts; the others, by name, on the rank with the references alone.
std::vector<TensorDistance> distances(Session& session, const std::vector<at::Tensor>& actual,
                                      const WholeTensors& expected, const WholeTensors& rounded) {
  const std::vector<NamedShard>& shards = session.shards();
  const auto count = static_cast<int64_t>(shards.size());
  at::Tensor squares = at::zeros({session.world().size(), count}, at::kDouble);  // each rank fills its row
  at::Tensor whole_squares = at::zeros({2, count}, at::kDouble);
  for (int64_t i = 0; i < count; ++i) {
    const NamedShard& entry = shards[static_cast<size_t>(i)];
    const bool here = session.has_reference();
    const at::Tensor whole = session.from_reference(here ? expected.at(entry.name) : at::Tensor(), entry.shard.shape);
    const at::Tensor& part = actual[static_cast<size_t>(i)];
    squares[session.world().rank()][i] = part.defined() ? square_of_norm(part - entry.shard.slice(whole)) : INFINITY;
    if (!here) continue;
    whole_squares[0][i] = square_of_norm(rounded.at(entry.name) - whole);
    whole_squares[1][i] = square_of_norm(whole);
  }
  session.world().all_reduce_(squares, "verify distances");
  session.world().broadcast_(whole_squares, 0, "verify distances");

  std::vector<TensorDistance> result(shards.size());
  const int64_t tp = session.mesh().tensor().size(), dp = session.mesh().data().size();
  for (int64_t i = 0; i < count; ++i) {
    const at::Tensor by_rank = squares.select(1, i).view({dp, tp});
    const bool replicated = shards[static_cast<size_t>(i)].shard.replicated();
    const at::Tensor by_copy = replicated ? std::get<0>(by_rank.max(1)) : by_rank.sum(1);
    result[static_cast<size_t>(i)] = {std::sqrt(by_copy.max().item<double>()),
                                      std::sqrt(whole_squares[0][i].item<double>()),
                                      std::sqrt(whole_squares[1][i].item<double>())};
  }
  return result;
}

// All tensors that `counts` as one.
template <typename Counts>
TensorDistance combined(const Session& session, const std::vector<TensorDistance>& distances, const Counts& counts) {
  TensorDistance all;
  for (size_t i = 0; i < distances.size(); ++i) {
    if (!counts(session.shards()[i].name)) continue;
    all.sharded = std::hypot(all.sharded, distances[i].sharded);
    all.rounded = std::hypot(all.rounded, distances[i].rounded);
    all.expected = std::hypot(all.expected, distances[i].expected);
  }
  return all;
}

// `scale`: what both distances are relative to.
Measurement measure_distance(std::string what, const TensorDistance& distance, double scale, const std::string& note) {
  const double lost = distance.rounded / scale;
  Measurement row = measure(std::move(what), distance.sharded / scale, bfloat16_limit(lost),
                            note + "the reference in bfloat16: " + short_number(lost));
  row.max_rel_difference = row.value;
  return row;
}

bool has_gradient_of_its_own(const std::string& name) { return !has_zero_gradient(name); }

// The tensor that comes closest to its limit.
Measurement measure_worst(const Session& session, const std::string& what, const std::vector<TensorDistance>& all) {
  Measurement worst;
  size_t compared = 0;
  for (size_t i = 0; i < all.size(); ++i) {
    const std::string& name = session.shards()[i].name;
    if (has_zero_gradient(name)) continue;
    const Measurement row = measure_distance(what, all[i], all[i].expected, "furthest off: " + name + "; ");
    if (++compared == 1 || !(row.value / row.limit <= worst.value / worst.limit)) worst = row;
  }
  worst.detail = std::to_string(compared) + " tensors; " + worst.detail;
  return worst;
}

WholeTensors gradients_of(OptReferenceImpl& reference) {
  WholeTensors gradients;
  for (const auto& parameter : reference.named_parameters()) gradients[parameter.key()] = parameter.value().grad();
  return gradients;
}

double norm_of(const WholeTensors& tensors) {
  double squares = 0;
  for (const auto& [name, tensor] : tensors) squares += square_of_norm(tensor);
  return std::sqrt(squares);
}

// The parameters as they are, to say later how they moved.
class Movement {
 public:
  explicit Movement(const std::vector<at::Tensor>& parameters) {
    for (const at::Tensor& parameter : parameters) before_.push_back(parameter.detach().to(at::kFloat, false, true));
  }
  std::vector<at::Tensor> to(const std::vector<at::Tensor>& parameters) const {
    std::vector<at::Tensor> moved;
    for (size_t i = 0; i < before_.size(); ++i) moved.push_back(parameters[i].detach() - before_[i]);
    return moved;
  }

 private:
  std::vector<at::Tensor> before_;
};

WholeTensors by_name(OptReferenceImpl& reference, const std::vector<at::Tensor>& tensors) {
  WholeTensors named;
  const auto parameters = reference.named_parameters();
  for (size_t i = 0; i < tensors.size(); ++i) named[parameters[i].key()] = tensors[i];
  return named;
}

std::vector<at::Tensor> tensors_of(const std::vector<NamedShard>& shards) {
  std::vector<at::Tensor> tensors;
  for (const NamedShard& entry : shards) tensors.push_back(entry.tensor);
  return tensors;
}

Measurement measure_masters(Session& session, const Optimizer& optimizer, const std::string& name) {
  double wrong = 0;
  const std::vector<NamedShard> masters = optimizer.master_parameters();
  for (size_t i = 0; i < masters.size(); ++i) {
    const bool right = masters[i].tensor.scalar_type() == at::kFloat &&
                       masters[i].tensor.to(at::kBFloat16).equal(session.shards().at(i).tensor);
    if (!right) ++wrong;
  }
  return measure(name + "weights that are not their float32 master, rounded", max_over_ranks(wrong, session.world()), 0,
                 "bit for bit");
}

// The reference in bfloat16 as it is trained: an optimizer of torch's on float32 masters.
class RoundedTraining {
 public:
  RoundedTraining(OptReferenceImpl& rounded, const OptimizerCase& entry) : parameters_(rounded.parameters()) {
    for (const at::Tensor& parameter : parameters_) masters_.push_back(parameter.detach().to(at::kFloat));
    optimizer_ = entry.make(masters_, entry.learning_rate);
  }
  void step(OptReferenceImpl& rounded, const Batch& batch) {
    rounded.zero_grad();
    rounded.forward(batch.input_ids, batch.attention_mask, batch.labels).loss.backward();
    const at::NoGradGuard no_grad;
    for (size_t i = 0; i < masters_.size(); ++i) masters_[i].mutable_grad() = parameters_[i].grad().to(at::kFloat);
    optimizer_->step();
    for (size_t i = 0; i < masters_.size(); ++i) parameters_[i].copy_(masters_[i]);
  }
  const std::vector<at::Tensor>& masters() const { return masters_; }

 private:
  std::vector<at::Tensor> parameters_, masters_;
  std::unique_ptr<torch::optim::Optimizer> optimizer_;
};

}  // namespace

double bfloat16_limit(double lost) { return std::max(3 * lost, 1.0 / 64); }

double relative_distance(const at::Tensor& actual, const at::Tensor& expected) {
  return std::sqrt(square_of_norm(actual - expected) / square_of_norm(expected));
}

Measurement measure_bfloat16_logits(Session& session, std::string what, const at::Tensor& actual,
                                    const at::Tensor& expected, const at::Tensor& rounded) {
  const double lost = session.from_reference(rounded.defined() ? relative_distance(rounded, expected) : 0.0);
  const double distance = max_over_ranks(relative_distance(actual, expected), session.world());
  std::vector<Difference> difference(1);
  difference[0].add(actual, expected);
  Measurement row = measure(std::move(what) + ", relative", distance, bfloat16_limit(lost),
                            "2-norm; the reference in bfloat16: " + short_number(lost));
  row.max_abs_difference = max_over_ranks(difference, session.world())[0].max_abs;
  row.max_rel_difference = distance;
  return row;
}

Measurements measure_bfloat16_gradients(Session& session, const Batch& batch) {
  WholeTensors expected, rounded;
  session.with_reference([&](OptReferenceImpl& reference) { expected = gradients_of(reference); });
  session.with_bfloat16_reference([&](OptReferenceImpl& reference) {
    reference.zero_grad();
    reference.forward(batch.input_ids, batch.attention_mask, batch.labels).loss.backward();
    rounded = gradients_of(reference);
  });
  std::vector<at::Tensor> actual;
  for (size_t i = 0; i < session.shards().size(); ++i) actual.push_back(session.gradient(i));
  const std::vector<TensorDistance> all = distances(session, actual, expected, rounded);

  Measurements rows{measure_worst(session, "gradients, relative, tensor by tensor", all)};
  const double norm = session.from_reference(norm_of(expected));
  const double rounded_norm = session.from_reference(norm_of(rounded));
  const TensorDistance norms{std::abs(session.gradient_norm() - norm), std::abs(rounded_norm - norm)};
  rows.push_back(measure_distance("norm of all gradients, relative", norms, norm, ""));
  const TensorDistance zeros = combined(session, all, has_zero_gradient);
  if (zeros.rounded > 0) {
    rows.push_back(measure_distance("gradients that are zero but for rounding", zeros, norm,
                                    "k_proj.bias, relative to the norm of all gradients; "));
  }
  return rows;
}

Measurements measure_bfloat16_step(Session& session, Optimizer& optimizer, double learning_rate) {
  const Movement movement(tensors_of(session.shards()));
  optimizer.step(learning_rate);
  const std::vector<at::Tensor> actual = movement.to(tensors_of(optimizer.master_parameters()));
  WholeTensors expected, rounded;
  session.with_reference([&](OptReferenceImpl& reference) {
    const at::NoGradGuard no_grad;
    const Movement of_reference(reference.parameters());
    for (const at::Tensor& parameter : reference.parameters()) parameter.sub_(parameter.grad(), learning_rate);
    expected = by_name(reference, of_reference.to(reference.parameters()));
  });
  session.with_bfloat16_reference([&](OptReferenceImpl& reference) {
    for (const auto& [name, gradient] : gradients_of(reference)) {
      rounded[name] = gradient.to(at::kFloat).mul(-learning_rate);
    }
  });
  return {measure_worst(session, "movement of the weights in an SGD step (lr 0.01)",
                        distances(session, actual, expected, rounded)),
          measure_masters(session, optimizer, "")};
}

Measurements measure_bfloat16_optimizer(Session& session, Optimizer& optimizer, const OptimizerCase& entry,
                                        int64_t steps) {
  const Movement movement(tensors_of(session.shards()));
  std::unique_ptr<torch::optim::Optimizer> reference_optimizer;
  std::unique_ptr<RoundedTraining> rounded_training;
  std::unique_ptr<Movement> of_reference;
  session.with_reference([&](OptReferenceImpl& reference) {
    reference_optimizer = entry.make(reference.parameters(), entry.learning_rate);
    of_reference = std::make_unique<Movement>(reference.parameters());
  });
  session.with_bfloat16_reference(
      [&](OptReferenceImpl& reference) { rounded_training = std::make_unique<RoundedTraining>(reference, entry); });
  Measurements rows;
  Measurement worst;
  for (int64_t step = 0; step < steps; ++step) {
    const Batch batch = session.batch(step);
    const double loss = session.model_loss(batch);
    optimizer.step(entry.learning_rate);
    const double expected = session.reference_loss(batch);
    session.with_reference([&](OptReferenceImpl&) { reference_optimizer->step(); });
    session.with_bfloat16_reference([&](OptReferenceImpl& reference) { rounded_training->step(reference, batch); });
    const Measurement row = measure_loss("", loss, expected, session.options().loss_tolerance);
    if (step == 0 || !(row.value <= worst.value)) worst = row;
  }
  worst.what = entry.name + ": losses of " + std::to_string(steps) + " steps";
  worst.detail = "furthest apart: " + worst.detail;
  rows.push_back(worst);

  WholeTensors expected, rounded;
  session.with_reference([&](OptReferenceImpl& reference) {
    expected = by_name(reference, of_reference->to(reference.parameters()));
    rounded = by_name(reference, of_reference->to(rounded_training->masters()));
  });
  const std::vector<TensorDistance> all =
      distances(session, movement.to(tensors_of(optimizer.master_parameters())), expected, rounded);
  const TensorDistance together = combined(session, all, has_gradient_of_its_own);
  rows.push_back(measure_distance(entry.name + ": movement of all weights, relative", together, together.expected, ""));
  rows.push_back(measure_masters(session, optimizer, entry.name + ": "));
  return rows;
}

}  // namespace optp

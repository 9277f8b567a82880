// Optimizers and clipping against the values that torch.optim gave (scripts/make_training_golden.py).
#include "src/train/optimizer.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "src/checkpoint/safetensors.h"
#include "tests/support/errors.h"
#include "tests/support/tensors.h"

namespace optp {
namespace {

using testing::close;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using testing::message_of;
using testing::same;

const SafetensorsFile& recorded() {
  static const SafetensorsFile file(OPTP_GOLDEN "/optimizers.safetensors");
  return file;
}

OptimizerOptions options_of(const std::string& text) {
  const auto json = nlohmann::json::parse(text);
  OptimizerOptions options(parse_optimizer(json["kind"].get<std::string>()));
  if (json.contains("betas")) options.beta1(json["betas"][0].get<double>()).beta2(json["betas"][1].get<double>());
  if (json.contains("weight_decay")) options.weight_decay(json["weight_decay"].get<double>());
  if (json.contains("eps")) options.eps(json["eps"].get<double>());
  if (json.contains("momentum")) options.momentum(json["momentum"].get<double>());
  if (json.contains("alpha")) options.alpha(json["alpha"].get<double>());
  return options.nesterov(json.value("nesterov", false))
      .centered(json.value("centered", false))
      .no_decay_bias(json.value("no_decay_bias", false));
}

// The recorded parameters at their start, in `type`.
std::vector<NamedShard> start(at::ScalarType type) {
  std::vector<NamedShard> shards;
  for (const char* name : {"matrix", "bias", "rarely"}) {
    const at::Tensor value = recorded().read(std::string("start.") + name).to(type);
    shards.push_back({name, value.clone().requires_grad_(), {.shape = value.sizes().vec()}});
  }
  return shards;
}

// Makes the recorded gradients of `step` those of `gradients`: "rarely" has one in every third step only.
void take_gradients(Gradients& gradients, const std::vector<NamedShard>& shards, int64_t step) {
  gradients.start_step();
  for (const NamedShard& entry : shards) {
    if (entry.name == "rarely" && step % 3 != 1) continue;
    const at::Tensor gradient = recorded().read("gradient." + entry.name)[step].to(entry.tensor.scalar_type());
    entry.tensor.backward(gradient);
  }
  gradients.finish();
}

class OptimizerCases : public ::testing::TestWithParam<std::string> {};

std::vector<std::string> case_names() {
  std::vector<std::string> names;
  for (const auto& [name, options] : recorded().metadata()) {
    if (options.starts_with("{")) names.push_back(name);
  }
  return names;
}

INSTANTIATE_TEST_SUITE_P(Recorded, OptimizerCases, ::testing::ValuesIn(case_names()),
                         [](const auto& test) { return test.param; });

TEST_P(OptimizerCases, EqualTorchOptimOver100StepsWithAnotherLearningRateEach) {
  const at::Tensor lr = recorded().read("lr");
  for (const auto& [type, type_name, tolerance] :
       {std::tuple(at::kFloat, "float32", 1e-6), std::tuple(at::kDouble, "float64", 1e-13)}) {
    const std::string prefix = GetParam() + "." + type_name + ".";
    SCOPED_TRACE(prefix);
    const auto shards = start(type);
    Gradients gradients(shards, Mesh());
    Optimizer optimizer(gradients, options_of(recorded().metadata().at(GetParam())));
    for (int64_t step = 0; step < 100; ++step) {
      take_gradients(gradients, shards, step);
      optimizer.step(lr[step].item<double>());
      if (!recorded().contains(c10::str(prefix, step + 1, ".matrix"))) continue;
      for (const NamedShard& entry : shards) {
        EXPECT_TRUE(close(entry.tensor, recorded().read(c10::str(prefix, step + 1, ".", entry.name)), tolerance))
            << entry.name << " after step " << step + 1;
      }
    }
    size_t states = 0;
    for (const std::string& name : recorded().names())
      states += name.starts_with(prefix) && name.find('/') != std::string::npos;
    EXPECT_EQ(optimizer.state().size(), states);
    for (const NamedShard& entry : optimizer.state()) {
      // Relative: RMSprop's momentum buffer exceeds 4, where float32 numbers are 4.8e-7 apart and three such steps are
      // rounding.
      const at::Tensor expected = recorded().read(prefix + entry.name);
      EXPECT_TRUE(close(entry.tensor, expected, tolerance * std::max(1.0, expected.abs().max().item<double>())))
          << entry.name;
      EXPECT_EQ(entry.tensor.sizes(), entry.shard.local_shape()) << entry.name;
    }
  }
}

// The state loaded into another optimizer, half-way: the rest of the run is the same bits.
TEST_P(OptimizerCases, GoOnFromTheirStateWithTheSameBits) {
  const OptimizerOptions options = options_of(recorded().metadata().at(GetParam()));
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const auto shards = start(type);
    Gradients gradients(shards, Mesh());
    Optimizer optimizer(gradients, options);
    const auto run = [](Gradients& into, Optimizer& with, const std::vector<NamedShard>& parameters, int64_t first) {
      for (int64_t step = first; step < first + 5; ++step) {
        take_gradients(into, parameters, step);
        with.step(1e-2 / static_cast<double>(step + 1));
      }
    };
    run(gradients, optimizer, shards, 0);
    const auto copies = start(type);
    for (size_t i = 0; i < copies.size(); ++i) copies[i].tensor.detach().copy_(shards[i].tensor.detach());
    Gradients other_gradients(copies, Mesh());
    Optimizer other(other_gradients, options);
    const auto from = optimizer.state();
    const auto to = other.state();
    ASSERT_EQ(from.size(), to.size());
    for (size_t i = 0; i < from.size(); ++i) {
      EXPECT_EQ(from[i].name, to[i].name);
      to[i].tensor.copy_(from[i].tensor);
    }
    run(gradients, optimizer, shards, 5);
    run(other_gradients, other, copies, 5);
    for (size_t i = 0; i < copies.size(); ++i) {
      EXPECT_TRUE(same(copies[i].tensor.detach(), shards[i].tensor.detach())) << shards[i].name;
    }
  }
}

// bfloat16 parameters follow a float32 run that sees the same gradients: the master is that run's parameter.
TEST_P(OptimizerCases, KeepFloat32MastersOfBfloat16Parameters) {
  const OptimizerOptions options = options_of(recorded().metadata().at(GetParam()));
  const auto shards = start(at::kBFloat16);
  auto exact = start(at::kFloat);
  for (size_t i = 0; i < exact.size(); ++i) exact[i].tensor.detach().copy_(shards[i].tensor.detach());
  Gradients gradients(shards, Mesh());
  Gradients exact_gradients(exact, Mesh());
  Optimizer optimizer(gradients, options);
  Optimizer exact_optimizer(exact_gradients, options);
  for (int64_t step = 0; step < 20; ++step) {
    take_gradients(gradients, shards, step);
    for (const NamedShard& entry : exact) entry.tensor.mutable_grad().reset();
    exact_gradients.start_step();
    for (size_t i = 0; i < exact.size(); ++i) {
      if (gradients.parameters()[i].has_gradient) exact[i].tensor.backward(gradients.parameters()[i].gradient.clone());
    }
    exact_gradients.finish();
    optimizer.step(1e-3);  // smaller steps than bfloat16 resolves
    exact_optimizer.step(1e-3);
  }
  size_t masters = 0;
  for (const NamedShard& entry : optimizer.state()) {
    EXPECT_EQ(entry.tensor.scalar_type(), at::kFloat) << entry.name;
    masters += entry.name.starts_with("master/");
  }
  EXPECT_EQ(masters, shards.size());
  for (size_t i = 0; i < shards.size(); ++i) {
    const NamedShard master = optimizer.master_parameters()[i];
    EXPECT_EQ(master.name, shards[i].name);
    EXPECT_TRUE(same(master.tensor, exact[i].tensor.detach())) << master.name;
    EXPECT_TRUE(same(shards[i].tensor.detach(), master.tensor.to(at::kBFloat16))) << master.name;
  }
}

TEST(OptimizerMasters, CanBeLoadedAtFullPrecision) {
  const at::Tensor weight = at::ones({3}, at::kBFloat16).requires_grad_();
  Gradients gradients({{"w", weight, {.shape = {3}}}}, Mesh());
  Optimizer optimizer(gradients, OptimizerKind::sgd);
  optimizer.master_parameters()[0].tensor.fill_(1.001);
  optimizer.copy_masters();
  EXPECT_TRUE(same(weight.detach(), at::full({3}, 1.001, at::kBFloat16)));
  weight.backward(at::full({3}, 1.0, at::kBFloat16));
  gradients.finish();
  optimizer.step(1e-3);
  EXPECT_TRUE(close(optimizer.master_parameters()[0].tensor, at::full({3}, 1.0), 1e-7));
}

TEST(OptimizerSteps, BumpTheVersionOfTheParameters) {
  const at::Tensor weight = at::ones({3}).requires_grad_();
  Gradients gradients({{"w", weight, {.shape = {3}}}}, Mesh());
  Optimizer optimizer(gradients, OptimizerKind::rmsprop);
  const at::Tensor stale = weight * weight;  // saves the weight
  weight.sum().backward();
  gradients.finish();
  optimizer.step(0.1);
  EXPECT_THAT(message_of([&] { stale.sum().backward(); }), HasSubstr("modified by an inplace operation"));
}

// A constant gradient: square_avg - grad_avg^2 is zero but for rounding, and torch's square root of it may be NaN.
TEST(OptimizerSteps, CenteredRmspropStaysFinite) {
  const at::Tensor weight = at::ones({100}).requires_grad_();
  Gradients gradients({{"w", weight, {.shape = {100}}}}, Mesh());
  Optimizer optimizer(gradients, OptimizerOptions(OptimizerKind::rmsprop).centered(true).alpha(0.5));
  for (int step = 0; step < 60; ++step) {
    gradients.start_step();
    weight.backward(at::linspace(0.1, 3, 100));
    gradients.finish();
    optimizer.step(1e-12);
  }
  EXPECT_TRUE(weight.isfinite().all().item<bool>());
}

TEST(OptimizerState, IsNamedByStateAndParameter) {
  const auto names = [](const OptimizerOptions& options, at::ScalarType type) {
    const at::Tensor weight = at::ones({3}, type).requires_grad_();
    Gradients gradients({{"fc.weight", weight, {.shape = {3}}}}, Mesh());
    const Optimizer optimizer(gradients, options);
    std::vector<std::string> all;
    for (const NamedShard& entry : optimizer.state()) all.push_back(entry.name);
    return all;
  };
  using Options = OptimizerOptions;
  EXPECT_THAT(names(OptimizerKind::adamw, at::kBFloat16),
              ElementsAre("exp_avg/fc.weight", "exp_avg_sq/fc.weight", "step/fc.weight", "master/fc.weight"));
  EXPECT_THAT(names(OptimizerKind::sgd, at::kFloat), ElementsAre());
  EXPECT_THAT(names(Options(OptimizerKind::sgd).momentum(0.9), at::kFloat), ElementsAre("momentum_buffer/fc.weight"));
  EXPECT_THAT(names(Options(OptimizerKind::rmsprop).momentum(0.9).centered(true), at::kDouble),
              ElementsAre("square_avg/fc.weight", "grad_avg/fc.weight", "momentum_buffer/fc.weight"));
}

TEST(OptimizerOptionsErrors, NameTheValue) {
  const auto error = [](const OptimizerOptions& options) {
    return message_of<c10::ValueError>([&] { options.validate(); });
  };
  using Options = OptimizerOptions;
  for (const char* name : {"adamw", "adam", "sgd", "rmsprop"}) {
    EXPECT_EQ(optimizer_name(parse_optimizer(name)), name);
    EXPECT_EQ(error(parse_optimizer(name)), "no error");
  }
  EXPECT_THAT(message_of<c10::ValueError>([] { parse_optimizer("lion"); }),
              HasSubstr("\"lion\" is no optimizer: choose one of adamw, adam, sgd, rmsprop."));
  EXPECT_THAT(error(Options().beta1(1)), HasSubstr("betas are 1 and 0.999"));
  EXPECT_THAT(error(Options().eps(-1e-8)), HasSubstr("eps is -1e-08"));
  EXPECT_THAT(error(Options().weight_decay(-0.1)), HasSubstr("weight decay is -0.1"));
  EXPECT_THAT(error(Options().momentum(0.9)), HasSubstr("adamw has no momentum"));
  EXPECT_THAT(error(Options(OptimizerKind::sgd).momentum(1.5)), HasSubstr("momentum is 1.5"));
  EXPECT_THAT(error(Options(OptimizerKind::sgd).nesterov(true)), HasSubstr("Nesterov momentum needs a momentum"));
  EXPECT_THAT(error(Options(OptimizerKind::rmsprop).momentum(0.9).nesterov(true)),
              HasSubstr("rmsprop has no Nesterov"));
  EXPECT_THAT(error(Options(OptimizerKind::sgd).centered(true)), HasSubstr("sgd is never centered"));
  EXPECT_THAT(error(Options(OptimizerKind::rmsprop).alpha(1)), HasSubstr("alpha is 1"));
  EXPECT_EQ(Options(OptimizerKind::rmsprop).default_lr(), 1e-2);
  EXPECT_EQ(Options().decay(), 1e-2);
  EXPECT_EQ(Options(OptimizerKind::adam).decay(), 0);
}

TEST(Clipping, EqualsTorchsClipGradNorm) {
  for (const std::string name : {"clip", "keep"}) {
    SCOPED_TRACE(name);
    const auto shards = start(at::kFloat);
    Gradients gradients(shards, Mesh());
    for (const NamedShard& entry : shards) entry.tensor.backward(recorded().read("gradient." + entry.name)[0]);
    const double norm = gradients.finish().norm;
    EXPECT_NEAR(norm, recorded().read(name + ".norm").item<double>(), 1e-6);
    const double factor = gradients.clip(norm, recorded().read(name + ".max_norm").item<double>());
    EXPECT_EQ(factor < 1, name == "clip");
    for (const TrainedParameter& entry : gradients.parameters()) {
      EXPECT_TRUE(close(entry.gradient, recorded().read(name + "." + entry.name), 1e-7)) << entry.name;
    }
  }
}

}  // namespace
}  // namespace optp

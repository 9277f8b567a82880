// The exported module against values recorded from transformers (scripts/make_golden.py): every switch of the
// configuration once, padding on both sides.
#include "src/checkpoint/torchscript_export.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "modules/opt_for_causal_lm.h"
#include "src/checkpoint/model_source.h"
#include "src/checkpoint/safetensors.h"
#include "tests/checkpoint/checkpoint_files.h"

namespace optp {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using PastList = c10::List<at::Tensor>;
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

struct Exported {
  explicit Exported(const std::string& name)
      : source(find_model((fs::path(OPTP_GOLDEN) / name).string())),
        model(source.config, Mesh()),
        expected((fs::path(OPTP_GOLDEN) / name / "expected.safetensors").string()),
        ids(expected.read("input_ids")),
        mask(expected.read("attention_mask")),
        real(mask.to(at::kBool)),
        path(folder / "model.pt") {
    source.load_weights(named_shards(*model), 0);
    for (const NamedShard& entry : named_shards(*model)) tensors.emplace_back(entry.name, entry.tensor.detach());
    write_torchscript(path, source.config, tensors);
    module = torch::jit::load(path.string());
  }

  at::Tensor forward(const at::Tensor& input_ids, const c10::IValue& attention_mask = {}) {
    return module.forward({input_ids, attention_mask}).toTensor();
  }

  std::pair<at::Tensor, PastList> step(const at::Tensor& input_ids, const PastList& past,
                                       const c10::IValue& attention_mask = {}) {
    const auto result = module.get_method("forward_step")({input_ids, past, attention_mask}).toTuple();
    return {result->elements()[0].toTensor(), result->elements()[1].toTensorList()};
  }

  // Largest difference from transformers' logits, where they are specified.
  double distance(const at::Tensor& logits) const {
    const at::Tensor difference = (logits.to(at::kFloat) - expected.read("logits")).index({real});
    return logits.isfinite().all().item<bool>() ? difference.abs().max().item<double>() : INFINITY;
  }

  TemporaryFolder folder;
  ModelSource source;
  OptForCausalLM model;
  SafetensorsFile expected;
  at::Tensor ids, mask, real;
  fs::path path;
  NamedTensors tensors;
  torch::jit::Module module;
};

std::vector<std::string> golden_names() {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(OPTP_GOLDEN)) {
    if (fs::exists(entry.path() / "expected.safetensors")) names.push_back(entry.path().filename());
  }
  std::sort(names.begin(), names.end());
  return names;
}

void expect_forward(Exported& exported) {
  EXPECT_LT(exported.distance(exported.forward(exported.ids, exported.mask)), 1e-5);
  // Without a mask: as transformers with a mask of ones, which the sharded model is checked against.
  const at::Tensor unmasked = exported.model->forward(exported.ids).logits;
  EXPECT_LT((exported.forward(exported.ids) - unmasked).abs().max().item<double>(), 1e-5);
  EXPECT_FALSE(exported.forward(exported.ids).requires_grad());
}

void expect_steps(Exported& exported) {
  const OptConfig& config = exported.source.config;
  for (const std::vector<int64_t>& pieces :
       std::vector<std::vector<int64_t>>{{8}, {1, 1, 1, 1, 1, 1, 1, 1}, {3, 4, 1}}) {
    for (const bool masked : {true, false}) {
      PastList past;
      std::vector<at::Tensor> logits;
      int64_t begin = 0;
      for (const int64_t size : pieces) {
        const at::Tensor ids = exported.ids.narrow(1, begin, size);
        begin += size;
        auto [piece, present] =
            exported.step(ids, past, masked ? c10::IValue(exported.mask.narrow(1, 0, begin)) : c10::IValue());
        logits.push_back(piece);
        past = present;
        ASSERT_EQ(past.size(), 2 * config.num_hidden_layers());
        for (const at::Tensor& cached : past) {
          EXPECT_EQ(cached.sizes(), (std::vector<int64_t>{3, config.num_attention_heads(), begin, config.head_dim()}));
        }
      }
      if (masked) {
        EXPECT_LT(exported.distance(at::cat(logits, 1)), 1e-5) << pieces.size();
      } else {
        const at::Tensor whole = exported.forward(exported.ids);
        EXPECT_LT((at::cat(logits, 1) - whole).abs().max().item<double>(), 1e-5) << pieces.size();
      }
    }
  }
}

void expect_parameters(const Exported& exported) {
  std::set<std::string> names;
  for (const auto& parameter : exported.module.named_parameters()) {
    names.insert(parameter.name);
    EXPECT_FALSE(parameter.value.requires_grad());
    const auto original = std::find_if(exported.tensors.begin(), exported.tensors.end(),
                                       [&](const auto& entry) { return entry.first == parameter.name; });
    ASSERT_NE(original, exported.tensors.end()) << parameter.name;
    EXPECT_TRUE(at::equal(parameter.value, original->second)) << parameter.name;
  }
  EXPECT_EQ(names.size(), exported.tensors.size());
  EXPECT_EQ(OptConfig::from_json(exported.module.attr("config").toStringRef(), "config"), exported.source.config);
}

class TorchScriptGolden : public ::testing::TestWithParam<std::string> {};

TEST_P(TorchScriptGolden, LogitsEqualTransformersAndNamesStay) {
  Exported exported(GetParam());
  expect_forward(exported);
  expect_steps(exported);
  expect_parameters(exported);
}

INSTANTIATE_TEST_SUITE_P(Transformers, TorchScriptGolden, ::testing::ValuesIn(golden_names()), [](const auto& test) {
  std::string name = test.param;
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
});

TEST(TorchScriptExportTest, BatchAndLengthAreFree) {
  Exported exported("base");
  for (const auto& [batch, tokens] : {std::pair<int64_t, int64_t>{1, 1}, {1, 16}, {7, 5}, {2, 16}}) {
    const at::Tensor ids = at::randint(45, {batch, tokens}, at::kLong);
    const at::Tensor expected = exported.model->forward(ids).logits;
    EXPECT_LT((exported.forward(ids) - expected).abs().max().item<double>(), 1e-5) << batch << " x " << tokens;
  }
  // A mask of another type, a padded row that is all padding.
  at::Tensor mask = exported.mask.clone();
  mask[0].zero_();
  EXPECT_TRUE(exported.forward(exported.ids, mask).isfinite().all().item<bool>());
  EXPECT_LT(exported.distance(exported.forward(exported.ids, exported.mask.to(at::kBool))), 1e-5);
}

TEST(TorchScriptExportTest, HalfPrecisionRuns) {
  Exported exported("opt-350m");
  for (const auto type : {at::kHalf, at::kBFloat16, at::kDouble}) {
    NamedTensors converted = exported.tensors;
    for (auto& entry : converted) entry.second = entry.second.to(type);
    write_torchscript(exported.path, exported.source.config, converted);
    exported.module = torch::jit::load(exported.path.string());
    const at::Tensor logits = exported.forward(exported.ids, exported.mask);
    EXPECT_EQ(logits.scalar_type(), type);
    EXPECT_LT(exported.distance(logits), type == at::kBFloat16 ? 0.3 : type == at::kHalf ? 0.04 : 1e-5);
    auto [first, past] = exported.step(exported.ids.narrow(1, 0, 4), PastList(), exported.mask.narrow(1, 0, 4));
    EXPECT_EQ(exported.step(exported.ids.narrow(1, 4, 4), past, exported.mask).first.scalar_type(), type);
  }
}

TEST(TorchScriptExportTest, WrongInputIsASentence) {
  Exported exported("base");
  const auto message = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const std::exception& error) {
      return error.what();
    }
    return "no error";
  };
  const auto forward_error = [&](const at::Tensor& ids, const c10::IValue& mask = {}) {
    return message([&] { exported.forward(ids, mask); });
  };
  const auto step_error = [&](const at::Tensor& ids, const PastList& past, const c10::IValue& mask = {}) {
    return message([&] { exported.step(ids, past, mask); });
  };
  const auto zeros = [](at::IntArrayRef sizes) { return at::zeros(sizes, at::kLong); };

  EXPECT_THAT(forward_error(zeros({4})), HasSubstr("input_ids have the shape [4]; pass ids [batch, tokens]"));
  EXPECT_THAT(forward_error(zeros({2, 0})), HasSubstr("input_ids have the shape [2, 0]"));
  EXPECT_THAT(forward_error(zeros({1, 17})), HasSubstr("17 tokens a sequence and the model 16 positions; shorten"));
  EXPECT_THAT(forward_error(zeros({1, 4}) + 45), HasSubstr("input_ids go from 45 to 45; use ids from 0 to 44."));
  EXPECT_THAT(forward_error(zeros({1, 4}) - 1), HasSubstr("input_ids go from -1 to -1"));
  EXPECT_THAT(forward_error(zeros({2, 4}), zeros({2, 5})),
              HasSubstr("attention_mask has the shape [2, 5]; pass [2, 4]"));
  EXPECT_THAT(forward_error(zeros({2, 4}), zeros({4})), HasSubstr("attention_mask has the shape [4]; pass [2, 4]"));
  EXPECT_THAT(forward_error(zeros({2, 4}), zeros({2, 4}) - 1), HasSubstr("holds other values than 0 and 1"));

  const auto past = exported.step(zeros({2, 9}), PastList()).second;
  EXPECT_THAT(step_error(zeros({2, 8}), past), HasSubstr("17 tokens a sequence"));
  EXPECT_THAT(step_error(zeros({3, 1}), past), HasSubstr("for 3 sequences pass [3, 4, past tokens, 3], all alike."));
  EXPECT_THAT(step_error(zeros({2, 1}), past, zeros({2, 1})),
              HasSubstr("attention_mask has the shape [2, 1]; pass [2, 10]"));
  EXPECT_THAT(step_error(zeros({2, 1}), PastList({past.get(0)})),
              HasSubstr("past holds 1 tensors; pass the 4 that forward_step returned, or an empty list."));
  auto uneven = past.copy();
  uneven.set(3, past.get(3).narrow(2, 0, 5));
  EXPECT_THAT(step_error(zeros({2, 1}), uneven), HasSubstr("past holds a tensor of the shape [2, 4, 5, 3]"));
}

TEST(TorchScriptExportTest, WeightsThatDoNotFitAreErrors) {
  Exported exported("untied");
  const OptConfig& config = exported.source.config;
  const auto error_with = [&](const auto& change) {
    NamedTensors tensors = exported.tensors;
    change(tensors);
    return value_error([&] { write_torchscript(exported.path, config, tensors); });
  };
  const std::string before = read_bytes(exported.path);
  EXPECT_THAT(error_with([](NamedTensors& tensors) { tensors.erase(tensors.begin() + 3); }),
              HasSubstr("the tensor \"" + exported.tensors[3].first + "\" is missing; "));
  EXPECT_THAT(error_with([](NamedTensors& tensors) { tensors.emplace_back("more", at::ones({1})); }),
              HasSubstr("no place for the tensor \"more\""));
  EXPECT_THAT(error_with([](NamedTensors& tensors) { tensors.push_back(tensors[2]); }), HasSubstr("comes twice"));
  EXPECT_THAT(error_with([](NamedTensors& tensors) { tensors[0].second = at::ones({2, 3}); }),
              HasSubstr("has the shape [2, 3], but the model needs [45, 12]"));
  EXPECT_THAT(error_with([](NamedTensors& tensors) { tensors[4].second = tensors[4].second.to(at::kHalf); }),
              HasSubstr("convert all to the same"));
  EXPECT_THAT(error_with([](NamedTensors& tensors) {
                for (auto& entry : tensors) entry.second = entry.second.to(at::kLong);
              }),
              HasSubstr("one floating-point type"));
  EXPECT_EQ(read_bytes(exported.path), before);
  EXPECT_THAT(value_error([&] { write_torchscript(exported.folder / "none/model.pt", config, exported.tensors); }),
              HasSubstr("cannot write " + (exported.folder / "none/model.pt").string()));
}

TEST(TorchScriptExportTest, AFullDiskLeavesNothing) {
  Exported exported("base");
  const std::string before = read_bytes(exported.path);
  // Files may not grow beyond 4 KiB for a moment: write() fails as on a full disk.
  const auto handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit limit{};
  getrlimit(RLIMIT_FSIZE, &limit);
  const rlimit small{4096, limit.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const std::string message =
      value_error([&] { write_torchscript(exported.path, exported.source.config, exported.tensors); });
  setrlimit(RLIMIT_FSIZE, &limit);
  std::signal(SIGXFSZ, handler);
  EXPECT_THAT(message, HasSubstr("cannot write " + exported.path.string()));
  EXPECT_EQ(read_bytes(exported.path), before);
  EXPECT_EQ(std::distance(fs::directory_iterator(exported.folder.path()), fs::directory_iterator()), 1);
}

// A slice of a larger storage, a tensor that is not contiguous: the file holds the tensor, nothing around it.
TEST(TorchScriptExportTest, ViewsAreWrittenAlone) {
  Exported exported("base");
  const auto size = fs::file_size(exported.path);
  for (auto& entry : exported.tensors) {
    at::Tensor larger = at::zeros({1000, entry.second.numel()});
    larger[500].copy_(entry.second.flatten());
    entry.second = larger[500].view(entry.second.sizes());
    if (entry.second.dim() == 2) entry.second = entry.second.t().contiguous().t();
  }
  write_torchscript(exported.path, exported.source.config, exported.tensors);
  EXPECT_EQ(fs::file_size(exported.path), size);
  exported.module = torch::jit::load(exported.path.string());
  EXPECT_LT(exported.distance(exported.forward(exported.ids, exported.mask)), 1e-5);
}

}  // namespace
}  // namespace optp

#include "src/bench/workloads.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "modules/opt_for_causal_lm.h"
#include "parallel/gradients.h"
#include "src/inference/generator.h"
#include "src/inference/inference_model.h"
#include "src/train/optimizer.h"
#include "src/train/training_step.h"

namespace optp {
namespace {

constexpr int64_t kWarmup = 1;
constexpr int64_t kNewTokens = 64;
constexpr double kLearningRate = 1e-4;

}  // namespace

at::Tensor bench_ids(int64_t batch, int64_t seq_len, const OptConfig& config) {
  const int64_t words = std::min<int64_t>(50000, config.vocab_size() - 4);
  return at::arange(batch * seq_len, at::kLong).mul_(7919).add_(13).remainder_(words).add_(4).view({batch, seq_len});
}

WorkloadResult bench_forward(const Mesh& mesh, const WorkloadOptions& options) {
  const PeakMemory memory;
  const at::InferenceMode inference;
  OptForCausalLM model = load_for_inference(options.model, mesh, options.seed, options.dtype, options.weights);
  const at::Tensor ids = bench_ids(options.batch_size, options.seq_len, options.model.config);
  at::Tensor logits;
  WorkloadResult result;
  result.measurement = measure(mesh, memory, kWarmup, options.iterations, [&] {
    logits.reset();  // their memory serves the next ones
    logits = model->forward(ids, {.gather_logits = false}).logits;
  });
  result.tokens = ids.numel();
  at::Tensor sum = logits.abs().sum(at::kDouble);
  mesh.tensor().all_reduce_(sum, "bench check");
  result.check = {sum.item<double>() / static_cast<double>(ids.numel() * options.model.config.vocab_size())};
  return result;
}

WorkloadResult bench_train(const Mesh& mesh, const WorkloadOptions& options) {
  const PeakMemory memory;
  OptForCausalLM model(options.model.config, mesh, options.dtype);
  const std::vector<NamedShard> parameters = named_shards(*model);
  options.model.load_weights(parameters, options.seed, mesh);
  Gradients gradients(parameters, mesh);
  Optimizer optimizer(gradients, OptimizerOptions().weight_decay(0.01));
  const LossFunction loss = [&](const TrainingBatch& batch) {
    return model->forward(batch.input, {.targets = batch.target}).loss_sum;
  };
  TrainingStep training(loss, mesh, gradients, optimizer, options.batch_size, /*grad_clip=*/0);

  const at::Tensor ids = bench_ids(options.batch_size, options.seq_len, options.model.config);
  const Examples examples{ids, at::constant_pad_nd(ids.slice(1, 1), {0, 1}, -100)};
  WorkloadResult result;
  int64_t step = 0;
  result.measurement = measure(mesh, memory, kWarmup, options.iterations, [&] {
    const StepOutcome outcome = training.run(examples, ++step, /*first_example=*/0, kLearningRate, /*stop_code=*/0);
    if (step <= 2) result.check.push_back(outcome.loss);
  });
  result.tokens = ids.numel();
  return result;
}

WorkloadResult bench_decode(const Mesh& mesh, const WorkloadOptions& options) {
  const PeakMemory memory;
  Generator generator(load_for_inference(options.model, mesh, options.seed, options.dtype, options.weights),
                      /*tokenizer=*/nullptr);
  const at::Tensor ids = bench_ids(options.batch_size, options.seq_len, options.model.config);
  std::vector<std::vector<int64_t>> prompts;
  for (const at::Tensor& row : ids.unbind(0)) {
    prompts.emplace_back(row.const_data_ptr<int64_t>(), row.const_data_ptr<int64_t>() + row.numel());
  }
  std::vector<GenerationResult> texts;
  WorkloadResult result;
  result.measurement = measure(mesh, memory, kWarmup, options.iterations,
                               [&] { texts = generator.generate(prompts, {.max_new_tokens = kNewTokens}); });
  for (const GenerationResult& text : texts) result.tokens += static_cast<int64_t>(text.output_ids.size());
  const std::vector<int64_t>& first = texts[0].output_ids;
  result.check.assign(first.begin(), first.begin() + std::min<std::ptrdiff_t>(8, std::ssize(first)));
  return result;
}

}  // namespace optp

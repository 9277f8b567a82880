#include "src/cli/verify_first.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <iostream>

#include "src/verify/bfloat16.h"
#include "src/verify/report.h"
#include "src/verify/verify.h"

namespace optp::cli {

bool verify_first_batch(const TrainArguments& arguments, const ModelSource& source, const TrainingSet& train,
                        const Mesh& mesh) {
  const int64_t count = std::min(arguments.batch_size, train.size());
  if (count == 0) return true;  // the trainer refuses it
  const at::Tensor ids = train.read(/*epoch=*/0, /*first=*/0, count).input.contiguous();
  VerifyOptions options;
  options.source = source;
  options.type = dtype_of(arguments.common.dtype);
  if (options.type == at::kBFloat16) options.loss_tolerance = kBFloat16LossTolerance;
  options.seed = arguments.common.seed;
  options.batch_size = ids.size(0);
  options.seq_len = ids.size(1);
  options.micro_batch_size = arguments.micro_batch_size;
  options.sequence_parallel = arguments.sequence_parallel;
  options.activation_checkpointing = arguments.activation_checkpointing;
  options.text.assign(ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel());
  options.checks = {"forward", "backward", "memory"};
  const VerifyReport report = run_verification(options, mesh);
  if (!report.passed() && mesh.world().rank() == 0) std::cout << report_text(report);
  return report.passed();
}

}  // namespace optp::cli

// `optp train --verify-first`: the model is verified on the run's own first batch before it is trained.
#pragma once

#include "parallel/mesh.h"
#include "src/cli/train_options.h"
#include "src/train/training_set.h"

namespace optp::cli {

/// Forward, backward and memory of the sharded model against the reference, with the run's weights, mesh and switches,
/// on its first batch. Says on the log how each check went, and prints the report if one failed. Collective; true when
/// all passed.
bool verify_first_batch(const TrainArguments& arguments, const ModelSource& source, const TrainingSet& train,
                        const Mesh& mesh);

}  // namespace optp::cli

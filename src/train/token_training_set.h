// Token files as a training set for a causal language model.
#pragma once

#include <string>
#include <utility>

#include "src/data/token_dataset.h"
#include "src/train/training_set.h"

namespace optp {

/// An example is a window of T + 1 ids: input [N, T] its first T, target [N, T] the ids that follow each of them.
class TokenTrainingSet : public TrainingSet {
 public:
  explicit TokenTrainingSet(TokenDataset windows) : windows_(std::move(windows)) {}

  int64_t size() const override { return windows_.sequences(); }

  Examples read(int64_t epoch, int64_t first, int64_t count) const override {
    const at::Tensor ids = windows_.sequences(epoch, first, count);
    const int64_t length = ids.size(1) - 1;
    return {.input = ids.narrow(1, 0, length), .target = ids.narrow(1, 1, length)};
  }

  std::string fingerprint() const override {
    return windows_.fingerprint() + (windows_.shuffles() ? "" : " in file order");
  }

 private:
  TokenDataset windows_;
};

}  // namespace optp

// A host program: runs an exported model with nothing but LibTorch. It continues prompts greedily and prints the new
// ids, a line a prompt; the logits of the prompts go to a file that torch.load reads.
//
//   torchscript_host MODEL.pt LOGITS.pt COUNT 2,100,524 2,7 ...
#include <ATen/ATen.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>
#include <torch/csrc/jit/serialization/pickle.h>

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <sstream>
#include <string>
#include <vector>

namespace {

constexpr int64_t kPadding = 1;

// Prompts of different length as one batch, padded on the left: ids and mask, [B, T] each.
std::pair<at::Tensor, at::Tensor> batch_of(const std::vector<std::string>& prompts) {
  std::vector<std::vector<int64_t>> rows;
  size_t longest = 0;
  for (const std::string& prompt : prompts) {
    std::vector<int64_t>& row = rows.emplace_back();
    std::istringstream stream(prompt);
    for (std::string id; std::getline(stream, id, ',');) row.push_back(std::stoll(id));
    longest = std::max(longest, row.size());
  }
  const auto batch = static_cast<int64_t>(rows.size()), tokens = static_cast<int64_t>(longest);
  at::Tensor ids = at::full({batch, tokens}, kPadding, at::kLong);
  at::Tensor mask = at::zeros_like(ids);
  for (int64_t b = 0; b < batch; ++b) {
    const auto size = static_cast<int64_t>(rows[b].size());
    ids[b].narrow(0, tokens - size, size).copy_(at::tensor(rows[b], at::kLong));
    mask[b].narrow(0, tokens - size, size).fill_(1);
  }
  return {ids, mask};
}

void run(const std::string& model, const std::string& logits_path, int64_t count,
         const std::vector<std::string>& prompts) {
  torch::jit::Module module = torch::jit::load(model);
  auto [ids, mask] = batch_of(prompts);
  const std::vector<char> logits = torch::jit::pickle_save(module.forward({ids, mask}));
  std::ofstream(logits_path, std::ios::binary).write(logits.data(), static_cast<std::streamsize>(logits.size()));

  const auto forward_step = module.get_method("forward_step");
  c10::List<at::Tensor> past;
  std::vector<at::Tensor> chosen;
  for (int64_t i = 0; i < count; ++i) {
    const auto result = forward_step({ids, past, mask}).toTuple();
    past = result->elements()[1].toTensorList();
    ids = result->elements()[0].toTensor().select(1, -1).argmax(-1, /*keepdim=*/true);
    mask = at::cat({mask, at::ones_like(ids)}, 1);
    chosen.push_back(ids);
  }
  const at::Tensor all = at::cat(chosen, 1);
  for (int64_t b = 0; b < all.size(0); ++b) {
    for (int64_t i = 0; i < count; ++i) std::cout << (i == 0 ? "" : ",") << all[b][i].item<int64_t>();
    std::cout << "\n";
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  try {
    run(argv[1], argv[2], std::atoll(argv[3]), {argv + 4, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << error.what() << "\n";
    return 1;
  }
}

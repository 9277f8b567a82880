// Where the tensors of a checkpoint's shard files belong, as the files say: one text, or two with a zero byte between,
// for the files of one or two ranks. Parts that are accepted make up wholes, and any part of those can be read.
#include <ATen/ATen.h>

#include <algorithm>
#include <vector>

#include "src/checkpoint/checkpoint_tensors.h"
#include "src/checkpoint/safetensors_writer.h"
#include "src/checkpoint/shard_file.h"
#include "tests/fuzz/files.h"
#include "tests/fuzz/fuzz.h"

namespace optp {

// Those of parallel/parameter_shard.cpp would bring all of parallel/ along, and nothing here asks for a rank's shard.
Range ParameterShard::range() const { std::abort(); }
std::vector<int64_t> ParameterShard::local_shape() const { std::abort(); }

namespace {

constexpr CheckpointPart kPart = CheckpointPart::parameters;

// The files hold the same tensors, but for the number, which cannot be in two parts. No value is -1.
std::vector<std::pair<std::string, at::Tensor>> tensors_of(int64_t rank) {
  std::vector<std::pair<std::string, at::Tensor>> tensors = {{"matrix", at::arange(6, at::kFloat).view({2, 3})},
                                                             {"vector", at::arange(4, at::kLong)},
                                                             {"half", at::ones({1, 2}, at::kHalf)},
                                                             {"empty", at::ones({0, 2}, at::kFloat)}};
  if (rank == 0) tensors.emplace_back("number", at::ones({}, at::kInt));
  return tensors;
}

void write_shard_file(const FuzzFolder& folder, const CheckpointManifest::File& file, int64_t tp,
                      std::string_view boxes) {
  write_safetensors(folder.path() / file.name, tensors_of(file.rank),
                    {{"format", kCheckpointFormat},
                     {"version", std::to_string(kCheckpointVersion)},
                     {"part", checkpoint_part_name(file.part)},
                     {"rank", std::to_string(file.rank)},
                     {"tp", std::to_string(tp)},
                     {"tensors", std::string(boxes)}});
}

struct Piece {
  StoredTensor stored;
  TensorBox box;
};

// The part `wanted` of the tensor that the pieces make up.
at::Tensor read_part(const std::vector<Piece>& pieces, const TensorBox& wanted, at::ScalarType dtype) {
  at::Tensor out = at::full(wanted.size, -1, dtype);
  for (const Piece& piece : pieces) copy_box(piece.stored.bytes, piece.stored.dtype, piece.box, wanted, out);
  return out;
}

std::vector<double> sorted_values(const at::Tensor& tensor) {
  const at::Tensor flat = tensor.to(at::kDouble).contiguous().view(-1);
  std::vector<double> values(flat.const_data_ptr<double>(), flat.const_data_ptr<double>() + flat.numel());
  std::sort(values.begin(), values.end());
  return values;
}

void check_tensor(const at::Tensor& in_file, const std::vector<Piece>& pieces) {
  const TensorBox& any = pieces.front().box;
  const TensorBox whole{any.shape, std::vector<int64_t>(any.shape.size(), 0), any.shape};
  if (c10::multiply_integers(whole.shape) == 0) return;
  const at::ScalarType dtype = in_file.scalar_type();
  const at::Tensor read = read_part(pieces, whole, dtype);
  // Every element of every file is there once, and nothing else.
  std::vector<at::Tensor> stored;
  for (const Piece& piece : pieces) {
    expect(piece.box.shape == whole.shape && piece.stored.dtype == dtype);
    stored.push_back(in_file.reshape({-1}));
    expect(read_part({piece}, piece.box, dtype).equal(in_file));
  }
  expect(sorted_values(read) == sorted_values(at::cat(stored)));
  if (in_file.is_floating_point()) expect(read_part(pieces, whole, at::kDouble).equal(read.to(at::kDouble)));
  for (size_t d = 0; d < whole.shape.size(); ++d) {
    TensorBox part = whole;
    part.start[d] = whole.shape[d] / 2;
    part.size[d] -= part.start[d];
    const at::Tensor expected = read.narrow(static_cast<int64_t>(d), part.start[d], part.size[d]);
    expect(read_part(pieces, part, dtype).equal(expected));
  }
}

}  // namespace
}  // namespace optp

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const optp::FuzzFolder folder;
  return optp::fuzz(data, size, [](std::string_view rest) {
    optp::CheckpointManifest manifest;
    manifest.tp = rest.find('\0') == std::string_view::npos ? 1 : 2;
    for (int64_t rank = 0; rank < manifest.tp; ++rank) {
      manifest.files.push_back({optp::checkpoint_file_name(optp::kPart, rank, manifest.tp), optp::kPart, rank, 1, 0});
      optp::write_shard_file(folder, manifest.files.back(), manifest.tp, optp::take_part(rest));
    }
    const optp::CheckpointTensors checked(folder.path(), manifest, optp::kPart);

    std::vector<optp::SafetensorsFile> files;
    std::map<std::string, std::vector<optp::Piece>> pieces;
    for (const optp::CheckpointManifest::File& file : manifest.files) {
      files.emplace_back(folder.path() / file.name);
      for (const auto& [name, box] : optp::read_shard_boxes(files.back(), file, manifest.tp)) {
        pieces[name].push_back({files.back().tensor(name), box});
      }
    }
    for (const auto& [name, tensor] : optp::tensors_of(0)) optp::check_tensor(tensor, pieces.at(name));
  });
}

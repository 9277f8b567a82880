#include "src/checkpoint/convert.h"

#include <ATen/ATen.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <memory>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

#include "src/checkpoint/atomic_folder.h"
#include "src/checkpoint/model_parameters.h"
#include "src/checkpoint/torchscript_export.h"
#include "src/checkpoint/training_checkpoint.h"
#include "src/progress.h"

namespace optp {
namespace {

// A source that fits its configuration, and what becomes of it.
class Conversion {
 public:
  Conversion(const ModelSource& source, const ConvertOptions& options)
      : dtype_(options.dtype), weights_(source.open(options.seed)), parameters_(model_parameters(source.config)) {
    weights_->check(parameters_);
    for (const NamedShard& parameter : parameters_) {
      tensors_.push_back({parameter.name, dtype(parameter.name), parameter.shard.shape});
      result_.parameters += c10::multiply_integers(parameter.shard.shape);
      result_.bytes += tensors_.back().bytes();
    }
    result_.dtype = tensors_.front().dtype;
    progress_ = std::make_unique<Progress>("convert " + source.name, static_cast<int64_t>(result_.bytes), "bytes");
  }

  const std::vector<TensorSpec>& tensors() const { return tensors_; }
  const ConvertedModel& result() const { return result_; }
  c10::ScalarType dtype(const std::string& name) const { return dtype_ ? *dtype_ : weights_->dtype(name); }

  void read(const NamedShard& parameter) {
    weights_->read(parameter);
    // Replicated parameters are read once, by rank 0.
    done_ += static_cast<int64_t>(parameter.tensor.nbytes());
    progress_->update(std::min(done_, static_cast<int64_t>(result_.bytes)));
  }

 private:
  std::optional<c10::ScalarType> dtype_;
  std::unique_ptr<WeightSource> weights_;
  std::vector<NamedShard> parameters_;
  std::vector<TensorSpec> tensors_;
  ConvertedModel result_;
  std::unique_ptr<Progress> progress_;
  int64_t done_ = 0;
};

// How many pieces of rows a parameter is read in, so that none takes more than this, unless one row does.
int64_t pieces_of(const TensorSpec& tensor) {
  constexpr uint64_t kLargestPiece = uint64_t{16} << 20;
  const auto pieces = static_cast<int64_t>((tensor.bytes() + kLargestPiece - 1) / kLargestPiece);
  return std::clamp<int64_t>(pieces, 1, tensor.shape.front());
}

}  // namespace

ConvertedModel convert_to_hf(const ModelSource& source, const std::filesystem::path& folder,
                             const ConvertOptions& options, const HfWriterOptions& writer_options) {
  Conversion conversion(source, options);
  HfWriter writer(folder, source.config, conversion.tensors(), writer_options);
  for (const TensorSpec& tensor : conversion.tensors()) {
    const int64_t pieces = pieces_of(tensor);
    for (int64_t i = 0; i < pieces; ++i) {
      const ParameterShard piece{
          .shape = tensor.shape, .dim = 0, .layout = ShardLayout(tensor.shape.front(), pieces), .part = i};
      const at::Tensor values = at::empty(piece.local_shape(), tensor.dtype);
      conversion.read({tensor.name, values, piece});
      writer.write(values);
    }
  }
  writer.commit();
  return conversion.result();
}

ConvertedModel convert_to_checkpoint(const ModelSource& source, const std::filesystem::path& folder, int64_t tp,
                                     const ConvertOptions& options) {
  const std::filesystem::path target = new_folder(folder);
  Conversion conversion(source, options);
  write_training_checkpoint(target,
                            {.model_config = source.config.to_json(conversion.result().dtype),
                             .parameters = model_parameters(source.config, tp),
                             .dtype = [&](const std::string& name) { return conversion.dtype(name); },
                             .read = [&](const NamedShard& parameter) { conversion.read(parameter); }},
                            tp);
  return conversion.result();
}

ConvertedModel convert_to_torchscript(const ModelSource& source, const std::filesystem::path& file,
                                      const ConvertOptions& options) {
  std::error_code ignored;
  TORCH_CHECK_VALUE(!std::filesystem::exists(file, ignored), "cannot write ", file.string(),
                    ": it exists; choose another name, or remove it first.");
  ConvertOptions one_type = options;
  if (!one_type.dtype) one_type.dtype = Conversion(source, options).result().dtype;
  Conversion conversion(source, one_type);
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (const TensorSpec& tensor : conversion.tensors()) {
    tensors.emplace_back(tensor.name, at::empty(tensor.shape, tensor.dtype));
    conversion.read({tensor.name, tensors.back().second, {.shape = tensor.shape, .dim = {}, .layout = {}, .part = 0}});
  }
  write_torchscript(file, source.config, tensors);
  return conversion.result();
}

}  // namespace optp

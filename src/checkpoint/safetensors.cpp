#include "src/checkpoint/safetensors.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace optp {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

// Fills a contiguous tensor front to back from pieces of a file, which may lie at any address: they are copied as
// bytes, never read as numbers in place.
class TensorFiller {
 public:
  TensorFiller(at::ScalarType stored, const at::Tensor& out)
      : out_(out.detach().view(-1)), converts_(stored != out.scalar_type()) {
    // Elements converted at once: they stay in the cache, and ATen converts so few on this thread. Threads would not
    // help here, and waiting for them costs milliseconds a piece on a busy machine.
    constexpr int64_t kStaged = 1 << 14;
    target_ = converts_ ? at::empty({std::min(kStaged, out_.numel())}, stored) : out_;
    capacity_ = target_.nbytes();
  }

  void append(const char* data, size_t size) {
    while (size > 0) {
      const size_t piece = std::min(size, capacity_ - filled_);
      copy(data, static_cast<char*>(target_.mutable_data_ptr()) + filled_, piece);
      filled_ += piece;
      data += piece;
      size -= piece;
      if (converts_ && filled_ == capacity_) convert();
    }
  }

  void finish() {
    if (converts_) convert();
  }

 private:
  void copy(const char* from, char* to, size_t size) const {
    if (target_.scalar_type() == at::kBool) {
      // A bool is 0 or 1 to C++, a byte in a file can be anything.
      std::transform(from, from + size, to, [](char byte) { return static_cast<char>(byte != 0); });
    } else {
      std::memcpy(to, from, size);
    }
  }

  void convert() {
    const auto count = static_cast<int64_t>(filled_ / target_.element_size());
    out_.narrow(0, converted_, count).copy_(target_.narrow(0, 0, count));
    converted_ += count;
    filled_ = 0;
  }

  at::Tensor out_;
  bool converts_;
  at::Tensor target_;
  size_t capacity_ = 0;
  size_t filled_ = 0;      // bytes of target_
  int64_t converted_ = 0;  // elements of out_
};

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : file_(path) {
  const std::string_view bytes = file_.bytes();
  TORCH_CHECK_VALUE(!bytes.starts_with("version https://git-lfs"), "cannot read ", path.string(),
                    ": it is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`.");
  uint64_t length = 0;
  TORCH_CHECK_VALUE(bytes.size() >= sizeof(length), "cannot read ", path.string(), ": it has ", bytes.size(),
                    " bytes, too few for a safetensors file.");
  std::memcpy(&length, bytes.data(), sizeof(length));
  TORCH_CHECK_VALUE(length <= kLongestSafetensorsHeader, "cannot read ", path.string(), ": its header would be ",
                    length, " bytes long, above the limit of ", kLongestSafetensorsHeader,
                    " (is it a safetensors file at all?).");
  TORCH_CHECK_VALUE(length <= bytes.size() - sizeof(length), "cannot read ", path.string(), ": its header would be ",
                    length, " bytes long, but only ", bytes.size() - sizeof(length),
                    " follow (is the file truncated?).");
  data_start_ = sizeof(length) + length;
  header_ = parse_safetensors_header(bytes.substr(sizeof(length), length), bytes.size() - data_start_, path.string());
}

const SafetensorsHeader::Entry& SafetensorsFile::entry(const std::string& name) const {
  const auto found = header_.entries.find(name);
  TORCH_CHECK_VALUE(found != header_.entries.end(), path().string(), " has no tensor ", shown_name(name), ".");
  return found->second;
}

std::string_view SafetensorsFile::bytes(const std::string& name) const {
  const SafetensorsHeader::Entry& found = entry(name);
  return file_.bytes().substr(data_start_ + found.begin, found.end - found.begin);
}

at::Tensor SafetensorsFile::read(const std::string& name) const {
  at::Tensor out = at::empty(shape(name), dtype(name));
  read_range(name, /*dim=*/-1, 0, 0, out);
  return out;
}

void SafetensorsFile::read_range(const std::string& name, int64_t dim, int64_t start, int64_t size,
                                 const at::Tensor& out) const {
  const SafetensorsHeader::Entry& stored = entry(name);
  const auto dims = static_cast<int64_t>(stored.shape.size());
  TORCH_CHECK_VALUE(dim >= -1 && dim < dims, "tensor ", shown_name(name), " of ", path().string(), " has no dimension ",
                    dim, ": its shape is ", at::IntArrayRef(stored.shape), ".");
  std::vector<int64_t> shape = stored.shape;
  if (dim >= 0) {
    TORCH_CHECK_VALUE(start >= 0 && size >= 0 && size <= shape[dim] - start, "the range of ", size, " from ", start,
                      " is not within dimension ", dim, " of tensor ", shown_name(name), " of ", path().string(),
                      ", whose shape is ", at::IntArrayRef(stored.shape), ".");
    shape[dim] = size;
  }
  TORCH_CHECK_VALUE(out.sizes() == shape && out.is_contiguous() && out.is_cpu(), "tensor ", shown_name(name), " of ",
                    path().string(), " fills a contiguous CPU tensor of shape ", at::IntArrayRef(shape),
                    ", not one of ", out.sizes(), ".");
  TORCH_CHECK_VALUE(
      stored.dtype == out.scalar_type() || (at::isFloatingType(stored.dtype) && at::isFloatingType(out.scalar_type())),
      "tensor ", shown_name(name), " of ", path().string(), " is stored as ", *safetensors_dtype_name(stored.dtype),
      " and does not convert to ", out.scalar_type(), ".");
  if (out.numel() == 0) return;

  // One run of bytes for every index of the dimensions before `dim`.
  int64_t runs = 1;
  for (int64_t i = 0; i < dim; ++i) runs *= shape[i];
  const std::string_view whole = bytes(name);
  const size_t stride = whole.size() / runs;
  const size_t run = dim < 0 ? stride : stride / stored.shape[dim] * size;
  const size_t offset = dim < 0 ? 0 : stride / stored.shape[dim] * start;
  at::NoGradGuard no_grad;
  TensorFiller filler(stored.dtype, out);
  for (int64_t i = 0; i < runs; ++i) filler.append(whole.data() + i * stride + offset, run);
  filler.finish();
}

}  // namespace optp

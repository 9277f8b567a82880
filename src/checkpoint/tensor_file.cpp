#include "src/checkpoint/tensor_file.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "src/checkpoint/safetensors_header.h"

namespace optp {
namespace {

static_assert(std::endian::native == std::endian::little, "tensors in files are little-endian");

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

bool same_content(const StoredTensor& a, const StoredTensor& b) {
  return a.dtype == b.dtype && a.shape == b.shape && a.strides == b.strides && a.bytes.size() == b.bytes.size() &&
         (a.bytes.data() == b.bytes.data() || a.bytes == b.bytes);
}

TensorFile::TensorFile(const std::filesystem::path& path) : file_(path) {
  TORCH_CHECK_VALUE(!file_.bytes().starts_with("version https://git-lfs"), "cannot read ", path.string(),
                    ": it is a Git LFS pointer, not the file itself; fetch that with `git lfs pull`.");
}

void TensorFile::add(const std::string& name, StoredTensor tensor) {
  names_.push_back(name);
  tensors_.emplace(name, std::move(tensor));
}

const StoredTensor& TensorFile::tensor(const std::string& name) const {
  const auto found = tensors_.find(name);
  TORCH_CHECK_VALUE(found != tensors_.end(), path().string(), " has no tensor ", shown_name(name), ".");
  return found->second;
}

at::Tensor TensorFile::read(const std::string& name) const {
  at::Tensor out = at::empty(shape(name), dtype(name));
  read_range(name, /*dim=*/-1, 0, 0, out);
  return out;
}

void TensorFile::read_range(const std::string& name, int64_t dim, int64_t start, int64_t size,
                            const at::Tensor& out) const {
  const StoredTensor& stored = tensor(name);
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
      "tensor ", shown_name(name), " of ", path().string(), " is stored as ", stored.dtype, " and does not convert to ",
      out.scalar_type(), ".");
  if (out.numel() == 0) return;
  at::NoGradGuard no_grad;
  if (!stored.is_contiguous()) {
    // Nothing writes to it: the mapping is read-only.
    void* first = const_cast<char*>(stored.bytes.data());
    const at::Tensor whole = at::from_blob(first, stored.shape, stored.strides, stored.dtype);
    out.detach().copy_(dim < 0 ? whole : whole.narrow(dim, start, size));
    return;
  }

  // One run of bytes for every index of the dimensions before `dim`.
  int64_t runs = 1;
  for (int64_t i = 0; i < dim; ++i) runs *= shape[i];
  const size_t stride = stored.bytes.size() / runs;
  const size_t run = dim < 0 ? stride : stride / stored.shape[dim] * size;
  const size_t offset = dim < 0 ? 0 : stride / stored.shape[dim] * start;
  TensorFiller filler(stored.dtype, out);
  for (int64_t i = 0; i < runs; ++i) filler.append(stored.bytes.data() + i * stride + offset, run);
  filler.finish();
}

}  // namespace optp

#include "parallel/shard.h"

#include <c10/util/Exception.h>

#include <algorithm>

namespace optp {

ShardLayout::ShardLayout(int64_t total, int64_t parts, int64_t block) : total_(total), parts_(parts), block_(block) {
  TORCH_CHECK_VALUE(block >= 1 && total >= 1 && total % block == 0, "a dimension of ", total,
                    " cannot be cut into blocks of ", block, ": use a block size that divides it.");
  TORCH_CHECK_VALUE(parts >= 1 && parts <= total / block, "a dimension of ", total, " in blocks of ", block,
                    " cannot be shared by ", parts, " ranks: use 1 to ", total / block, ".");
}

Range ShardLayout::range(int64_t part) const {
  TORCH_CHECK_INDEX(part >= 0 && part < parts_, "part ", part, " of ", parts_, " does not exist.");
  const int64_t blocks = total_ / block_;
  const int64_t share = blocks / parts_;
  const int64_t extra = blocks % parts_;
  const int64_t first = part * share + std::min(part, extra);
  return {first * block_, (share + (part < extra ? 1 : 0)) * block_};
}

}  // namespace optp

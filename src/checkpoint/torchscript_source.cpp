#include "src/checkpoint/torchscript_source.h"

#include <c10/util/StringUtil.h>

#include <cmath>
#include <utility>
#include <vector>

namespace optp::torchscript_source {
namespace {

// `text` with each $NAME replaced by its value.
std::string with_values(std::string text, const std::vector<std::pair<std::string, std::string>>& values) {
  for (const auto& [name, value] : values) {
    for (size_t at = text.find(name); at != std::string::npos; at = text.find(name, at + value.size())) {
      text.replace(at, name.size(), value);
    }
  }
  return text;
}

// The shortest decimal number that a double is read back from exactly.
std::string number(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.17g", value);
  return text;
}

}  // namespace

std::string linear(bool bias) {
  return with_values(R"(
def forward(self, input: Tensor) -> Tensor:
    return torch.linear(input, self.weight$BIAS)
)",
                     {{"$BIAS", bias ? ", self.bias" : ""}});
}

std::string embedding() {
  return R"(
def forward(self, rows: Tensor) -> Tensor:
    return torch.embedding(self.weight, rows)
)";
}

std::string layer_norm(const OptConfig& config) {
  return with_values(R"(
def forward(self, input: Tensor) -> Tensor:
    return torch.layer_norm(input, [$D], $WEIGHT, $BIAS, 1e-05)
)",
                     {{"$D", std::to_string(config.hidden_size())},
                      {"$WEIGHT", config.layer_norm_elementwise_affine() ? "self.weight" : "None"},
                      {"$BIAS", config.layer_norm_elementwise_affine() ? "self.bias" : "None"}});
}

std::string attention(const OptConfig& config) {
  return with_values(R"(
def forward(self, hidden: Tensor, past: List[Tensor], visible: Optional[Tensor]) -> Tuple[Tensor, Tensor, Tensor]:
    batch = hidden.size(0)
    query = (self.q_proj.forward(hidden) * $SCALING).view([batch, -1, $H, $K]).transpose(1, 2)
    key = self.k_proj.forward(hidden).view([batch, -1, $H, $K]).transpose(1, 2)
    value = self.v_proj.forward(hidden).view([batch, -1, $H, $K]).transpose(1, 2)
    causal = visible is None and len(past) == 0
    if len(past) > 0:
        key = torch.cat([past[0], key], 2)
        value = torch.cat([past[1], value], 2)
    attended = torch.scaled_dot_product_attention(query, key, value, visible, 0.0, causal, scale=1.0)
    return (self.out_proj.forward(attended.transpose(1, 2).flatten(2)), key, value)
)",
                     {{"$SCALING", number(1.0 / std::sqrt(static_cast<double>(config.head_dim())))},
                      {"$H", std::to_string(config.num_attention_heads())},
                      {"$K", std::to_string(config.head_dim())}});
}

std::string decoder_layer(const OptConfig& config) {
  std::string text = R"(
def forward(self, hidden: Tensor, past: List[Tensor], visible: Optional[Tensor]) -> Tuple[Tensor, Tensor, Tensor]:
)";
  text += config.do_layer_norm_before() ? R"(
    attended, key, value = self.self_attn.forward(self.self_attn_layer_norm.forward(hidden), past, visible)
    x = hidden + attended
    x = x + self.fc2.forward(torch.$ACT(self.fc1.forward(self.final_layer_norm.forward(x))))
)"
                                        : R"(
    attended, key, value = self.self_attn.forward(hidden, past, visible)
    x = self.self_attn_layer_norm.forward(hidden + attended)
    x = self.final_layer_norm.forward(x + self.fc2.forward(torch.$ACT(self.fc1.forward(x))))
)";
  return with_values(text + "    return (x, key, value)\n", {{"$ACT", config.activation_function()}});
}

std::string decoder(const OptConfig& config) {
  // `present`: which of the P + T tokens are real. A padding query sees itself, so that no row of the attention is
  // empty, which some kernels turn into NaN; nothing real sees padding.
  std::string text = R"(
def forward(self, input_ids: Tensor, past: List[Tensor], attention_mask: Optional[Tensor], keep: bool) -> Tuple[Tensor, List[Tensor]]:
    assert input_ids.dim() == 2 and input_ids.numel() > 0, "input_ids have the shape {}; pass ids [batch, tokens], at least one of each.".format(input_ids.size())
    smallest, largest = int(input_ids.min()), int(input_ids.max())
    assert smallest >= 0 and largest < $V, "input_ids go from {} to {}; use ids from 0 to $LARGEST.".format(smallest, largest)
    batch, tokens = input_ids.size(0), input_ids.size(1)
    past_tokens = 0
    if len(past) > 0:
        assert len(past) == $CACHED, "past holds {} tensors; pass the $CACHED that forward_step returned, or an empty list.".format(len(past))
        if past[0].dim() == 4:
            past_tokens = past[0].size(2)
        for tensor in past:
            assert tensor.size() == [batch, $H, past_tokens, $K], "past holds a tensor of the shape {}; for {} sequences pass [{}, $H, past tokens, $K], all alike.".format(tensor.size(), batch, batch)
    total = past_tokens + tokens
    assert total <= $POSITIONS, "the input has {} tokens a sequence and the model $POSITIONS positions; shorten the input.".format(total)

    order = torch.arange(total, device=input_ids.device)
    queries = order[past_tokens:].unsqueeze(1)
    positions = queries.view([1, -1]) + 2
    visible: Optional[Tensor] = None
    if past_tokens > 0 and tokens > 1:
        visible = order <= queries
    if attention_mask is not None:
        assert attention_mask.size() == [batch, total], "attention_mask has the shape {}; pass [{}, {}]: a number for each token, past ones first.".format(attention_mask.size(), batch, total)
        present = attention_mask.eq(1)
        assert bool(present.logical_or(attention_mask.eq(0)).all()), "attention_mask holds other values than 0 and 1."
        if not bool(present.all()):
            positions = (present.cumsum(1) * present + 1)[:, past_tokens:]
            visible = present.unsqueeze(1).logical_and(order <= queries).logical_or(order == queries).unsqueeze(1)

    x = $EMBEDDED + self.embed_positions.forward(positions)
    kept: List[Tensor] = []
)";
  for (int64_t i = 0; i < config.num_hidden_layers(); ++i) {
    text += with_values(
        R"(
    x, key, value = getattr(self.layers, "$I").forward(x, past[$FIRST:$LAST], visible)
    if keep:
        kept += [key, value]
)",
        {{"$I", std::to_string(i)}, {"$FIRST", std::to_string(2 * i)}, {"$LAST", std::to_string(2 * i + 2)}});
  }
  if (config.has_final_layer_norm()) text += "    x = self.final_layer_norm.forward(x)\n";
  if (config.has_projections()) text += "    x = self.project_out.forward(x)\n";
  const std::string tokens = "self.embed_tokens.forward(input_ids)";
  return with_values(text + "    return (x, kept)\n",
                     {{"$LARGEST", std::to_string(config.vocab_size() - 1)},
                      {"$V", std::to_string(config.vocab_size())},
                      {"$CACHED", std::to_string(2 * config.num_hidden_layers())},
                      {"$H", std::to_string(config.num_attention_heads())},
                      {"$K", std::to_string(config.head_dim())},
                      {"$POSITIONS", std::to_string(config.max_position_embeddings())},
                      {"$EMBEDDED", config.has_projections() ? "self.project_in.forward(" + tokens + ")" : tokens}});
}

std::string causal_lm(const OptConfig& config) {
  return with_values(R"(
def forward(self, input_ids: Tensor, attention_mask: Optional[Tensor] = None) -> Tensor:
    hidden, kept = self.model.decoder.forward(input_ids, [], attention_mask, False)
    return torch.linear(hidden, self.$HEAD.weight)

def forward_step(self, input_ids: Tensor, past: List[Tensor], attention_mask: Optional[Tensor] = None) -> Tuple[Tensor, List[Tensor]]:
    hidden, kept = self.model.decoder.forward(input_ids, past, attention_mask, True)
    return (torch.linear(hidden, self.$HEAD.weight), kept)
)",
                     {{"$HEAD", config.tie_word_embeddings() ? "model.decoder.embed_tokens" : "lm_head"}});
}

}  // namespace optp::torchscript_source

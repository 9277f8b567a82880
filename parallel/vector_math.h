// Makes the elementary functions of LibTorch exact from their first call on.
#pragma once

namespace optp {

/// MKL's vector functions (exp, log, sqrt, ...), which LibTorch computes with, choose their code at the first call of
/// each. Where several threads make that call at the same time, one of them may get the least accurate code there is
/// (errors of thousands of units in the last place) for that call, whatever was asked for:
/// https://github.com/pytorch/pytorch/issues/188792. This calls each once, alone; a call of this from another thread
/// waits for that. Mesh does it, so only a program that computes on several threads without one needs to.
void resolve_vector_math();

}  // namespace optp

// Stands in for gloo/algorithm.h: ProcessGroupGloo.hpp includes it and uses nothing from it.
#pragma once

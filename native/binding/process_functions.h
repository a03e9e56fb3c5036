// Functions about this process, its threads and who started it.
#pragma once

#include <napi.h>

namespace derplane {

void defineProcessFunctions(Napi::Env env, Napi::Object exports);

}  // namespace derplane

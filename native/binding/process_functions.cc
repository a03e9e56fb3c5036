#include "process_functions.h"

#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <uv.h>

#include "../io/address.h"
#include "../io/inherited.h"
#include "../io/notify.h"
#include "../io/proxy_header.h"
#include "../io/thread_name.h"
#include "env.h"

namespace derplane {
namespace {

// On Linux a nice value belongs to a thread.
Napi::Value setThreadNice(const Napi::CallbackInfo& info) {
  const auto thread = static_cast<id_t>(::syscall(SYS_gettid));
  ::setpriority(PRIO_PROCESS, thread, static_cast<int>(numberOf(info[0])));
  return info.Env().Undefined();
}

Napi::Value setThreadName(const Napi::CallbackInfo& info) {
  nameThisThread(textOf(info[0]));
  return info.Env().Undefined();
}

// readProxyHeader(bytes): what PROXY header they begin with.
Napi::Value proxyHeader(const Napi::CallbackInfo& info) {
  static constexpr const char* kStates[] = {"none", "more", "bad", "local", "address"};
  size_t size = 0;
  const uint8_t* bytes = bytesOf(info[0], size);
  const ProxyHeader found = readProxyHeader({bytes, size});
  const auto result = Napi::Object::New(info.Env());
  result.Set("state", kStates[static_cast<size_t>(found.state)]);
  result.Set("size", static_cast<double>(found.size));
  result.Set("client", found.state == ProxyHeader::State::kAddress ? addressText(found.client) : "");
  return result;
}

bool throwSystem(Napi::Env env, int error) {
  if (error == 0) return false;
  throwCode(env, uv_err_name(-error), uv_strerror(-error));
  return true;
}

Napi::Value notify(const Napi::CallbackInfo& info) {
  throwSystem(info.Env(), notifyManager(textOf(info[0]), textOf(info[1])));
  return info.Env().Undefined();
}

Napi::Value describe(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  InheritedSocket found;
  if (throwSystem(env, describeSocket(static_cast<int>(numberOf(info[0])), found))) return env.Undefined();
  const bool is_ip = !found.address.empty();
  const char* kind = is_ip && found.type == SOCK_STREAM && found.listening ? "tcp"
                     : is_ip && found.type == SOCK_DGRAM                   ? "udp"
                                                                           : "other";
  const auto result = Napi::Object::New(env);
  result.Set("kind", Napi::String::New(env, kind));
  result.Set("address", Napi::String::New(env, found.address));
  return result;
}

}  // namespace

void defineProcessFunctions(Napi::Env env, Napi::Object exports) {
  exports.Set("setThreadNice", Napi::Function::New(env, setThreadNice));
  exports.Set("setThreadName", Napi::Function::New(env, setThreadName));
  exports.Set("readProxyHeader", Napi::Function::New(env, proxyHeader));
  exports.Set("notifyManager", Napi::Function::New(env, notify));
  exports.Set("describeSocket", Napi::Function::New(env, describe));
}

}  // namespace derplane

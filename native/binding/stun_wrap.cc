#include "stun_wrap.h"

#include <uv.h>

#include "../io/address.h"
#include "env.h"

namespace derplane {

Napi::Function StunServerWrap::define(Napi::Env env) {
  return DefineClass(
      env, "StunServer",
      {InstanceMethod("figures", &StunServerWrap::figures), InstanceMethod("close", &StunServerWrap::close),
       InstanceAccessor<&StunServerWrap::address>("address"), InstanceAccessor<&StunServerWrap::readError>("readError"),
       InstanceAccessor<&StunServerWrap::firstPrivate>("firstPrivate")});
}

// new StunServer(host, port, answersPerSecond, fd)
StunServerWrap::StunServerWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<StunServerWrap>(info) {
  const std::string host = textOf(info[0]);
  const int port = static_cast<int>(numberOf(info[1]));
  StunOptions options{.address = {}, .answers_per_second = static_cast<uint32_t>(numberOf(info[2]))};
  if (info[3].IsNumber()) options.fd = static_cast<int>(numberOf(info[3]));
  StunFailure failure;
  if (options.fd < 0 && uv_ip4_addr(host.c_str(), port, reinterpret_cast<sockaddr_in*>(&options.address)) != 0 &&
      uv_ip6_addr(host.c_str(), port, reinterpret_cast<sockaddr_in6*>(&options.address)) != 0) {
    throwCode(info.Env(), "EINVAL", "not an IP address");
    return;
  }
  server_ = StunServer::start(options, failure);
  if (server_ == nullptr) {
    throwCode(info.Env(), uv_err_name(-failure.error),
              std::string(failure.syscall) + ": " + uv_strerror(-failure.error));
  }
}

Napi::Value StunServerWrap::address(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), server_ == nullptr ? "" : addressText(server_->address()));
}

// In the order in which `stats` of src/stun/stun_server.ts takes them.
Napi::Value StunServerWrap::figures(const Napi::CallbackInfo& info) {
  auto found = Napi::Array::New(info.Env());
  if (server_ == nullptr) return found;
  const StunCounters& counters = server_->counters();
  uint32_t index = 0;
  for (const auto* counter :
       {&counters.success, &counters.not_stun, &counters.read_error, &counters.write_error, &counters.ipv4,
        &counters.ipv6, &counters.no_local_addr, &counters.rate_limited, &counters.told_private}) {
    found[index++] = Napi::Number::New(info.Env(), static_cast<double>(counter->load(std::memory_order_relaxed)));
  }
  return found;
}

Napi::Value StunServerWrap::readError(const Napi::CallbackInfo& info) {
  const int error = server_ == nullptr ? 0 : server_->readError();
  return Napi::String::New(info.Env(), error == 0 ? "" : std::string(uv_err_name(-error)) + ": " + uv_strerror(-error));
}

Napi::Value StunServerWrap::firstPrivate(const Napi::CallbackInfo& info) {
  return Napi::String::New(info.Env(), server_ == nullptr ? "" : addressText(server_->firstPrivate()));
}

void StunServerWrap::close(const Napi::CallbackInfo&) { server_.reset(); }

}  // namespace derplane

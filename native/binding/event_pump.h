// Carries the events of a relay's shards to JavaScript, on the control plane's loop.
#pragma once

#include <napi.h>
#include <uv.h>

#include <memory>

#include "../io/loop_handles.h"
#include "../io/relay_core.h"

namespace derplane {

class EventPump final : public LoopUser {
 public:
  static std::shared_ptr<EventPump> start(Napi::Env env, std::shared_ptr<RelayCore> core,
                                          const Napi::Function& callback);

 private:
  EventPump(std::shared_ptr<RelayCore> core, const Napi::Function& callback)
      : core_(std::move(core)), callback_(Napi::Persistent(callback)) {}
  void onClose() override;
  void pump();

  std::shared_ptr<RelayCore> core_;
  Napi::FunctionReference callback_;
  uv_async_t async_ = {};
};

}  // namespace derplane

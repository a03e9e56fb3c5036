// `Relay` of src/native.ts: the control plane's handle on a RelayCore.
#pragma once

#include <napi.h>

#include <memory>
#include <vector>

#include "../io/listener.h"
#include "../io/relay_core.h"
#include "../tls/tls_session.h"
#include "env.h"

namespace derplane {

// Wakes the control plane's loop when shards emitted events.
class EventPump;

class RelayWrap final : public Napi::ObjectWrap<RelayWrap> {
 public:
  static Napi::Function define(Napi::Env env);
  explicit RelayWrap(const Napi::CallbackInfo& info);
  ~RelayWrap() override;

 private:
  bool readConfig(const Napi::Object& options, RelayConfig& config);
  bool readMemory(const Napi::Object& options, RelayConfig& config);

  Napi::Value getId(const Napi::CallbackInfo& info);
  Napi::Value getHandshakes(const Napi::CallbackInfo& info);
  Napi::Value getRefused(const Napi::CallbackInfo& info);
  Napi::Value getRefusedByLimit(const Napi::CallbackInfo& info);
  Napi::Value getRefusedBytes(const Napi::CallbackInfo& info);
  Napi::Value getEvicted(const Napi::CallbackInfo& info);
  Napi::Value getMute(const Napi::CallbackInfo& info);
  Napi::Value getWaitingHandshakes(const Napi::CallbackInfo& info);
  Napi::Value getAccepts(const Napi::CallbackInfo& info);
  Napi::Value getTlsCounts(const Napi::CallbackInfo& info);
  Napi::Value getFailures(const Napi::CallbackInfo& info);
  Napi::Value setAcceptLimit(const Napi::CallbackInfo& info);
  Napi::Value takeAccept(const Napi::CallbackInfo& info);
  Napi::Value listen(const Napi::CallbackInfo& info);
  Napi::Value importFd(const Napi::CallbackInfo& info);
  Napi::Value socketPair(const Napi::CallbackInfo& info);
  Napi::Value detach(const Napi::CallbackInfo& info);
  Napi::Value discard(const Napi::CallbackInfo& info);
  Napi::Value setMeshKey(const Napi::CallbackInfo& info);
  Napi::Value startHandshake(const Napi::CallbackInfo& info);
  Napi::Value endHandshakes(const Napi::CallbackInfo& info);
  Napi::Value shardOf(const Napi::CallbackInfo& info);
  Napi::Value closePeer(const Napi::CallbackInfo& info);
  Napi::Value setForwarder(const Napi::CallbackInfo& info);
  Napi::Value consistencyCheck(const Napi::CallbackInfo& info);
  Napi::Value traffic(const Napi::CallbackInfo& info);
  Napi::Value clients(const Napi::CallbackInfo& info);
  Napi::Value getLabels(const Napi::CallbackInfo& info);
  Napi::Value getLabelsRefused(const Napi::CallbackInfo& info);
  Napi::Value setLogClients(const Napi::CallbackInfo& info);
  Napi::Value setClientEvents(const Napi::CallbackInfo& info);
  Napi::Value endLink(const Napi::CallbackInfo& info);
  Napi::Value getLostEvents(const Napi::CallbackInfo& info);
  Napi::Value adoptLink(const Napi::CallbackInfo& info);
  Napi::Value setRateLimit(const Napi::CallbackInfo& info);
  Napi::Value drain(const Napi::CallbackInfo& info);
  Napi::Value close(const Napi::CallbackInfo& info);

  // Makes a connection of `fd`; throws and returns 0 when the relay is full or closed.
  // `exempt`: a connection that the relay itself made is not refused because strangers are many.
  // `session`: what `head` was opened by; null for a plain connection.
  double addConnection(Napi::Env env, Fd fd, const Napi::Value& head, const Napi::Value& remote, bool exempt,
                       std::unique_ptr<TlsSession> session);
  bool ready(Napi::Env env);

  std::shared_ptr<RelayCore> core_;
  std::shared_ptr<EventPump> pump_;
  std::shared_ptr<LoopTie> pump_tie_;
  std::vector<std::weak_ptr<Listener>> listeners_;
  std::vector<Napi::ObjectReference> memory_;  // keeps the shared memory alive as long as shards may use it
};

}  // namespace derplane

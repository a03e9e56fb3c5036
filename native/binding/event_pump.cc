#include "event_pump.h"

#include "../io/address.h"
#include "env.h"

namespace derplane {
namespace {

Napi::Object eventValue(Napi::Env env, const Event& event) {
  const auto object = Napi::Object::New(env);
  switch (event.kind) {
    case Event::Kind::kClosed:
      object.Set("type", "closed");
      object.Set("id", Napi::Number::New(env, static_cast<double>(event.id)));
      object.Set("key", keyValue(env, event.key));
      object.Set("remote", addressText(event.address));
      object.Set("reason", closeReasonName(event.reason));
      object.Set("text", closeReasonText(event.reason));
      object.Set("notify", Napi::Boolean::New(env, event.notify));
      object.Set("peers", Napi::Number::New(env, static_cast<double>(event.peers)));
      break;
    case Event::Kind::kConnected:
      object.Set("type", "connected");
      object.Set("id", Napi::Number::New(env, static_cast<double>(event.id)));
      object.Set("key", keyValue(env, event.key));
      object.Set("remote", addressText(event.address));
      object.Set("mesh", Napi::Boolean::New(env, event.mesh));
      object.Set("prober", Napi::Boolean::New(env, event.prober));
      object.Set("notIdeal", Napi::Boolean::New(env, event.not_ideal));
      break;
    case Event::Kind::kFailed:
      object.Set("type", "failed");
      object.Set("id", Napi::Number::New(env, static_cast<double>(event.id)));
      object.Set("remote", addressText(event.address));
      object.Set("failure", Napi::Number::New(env, event.failure));
      object.Set("text", event.text);
      object.Set("notify", Napi::Boolean::New(env, event.notify));
      break;
    case Event::Kind::kLink:
      object.Set("type", "link");
      object.Set("id", Napi::Number::New(env, static_cast<double>(event.id)));
      object.Set("peers", Napi::Number::New(env, static_cast<double>(event.peers)));
      break;
    case Event::Kind::kHttp:
      object.Set("type", "http");
      object.Set("id", Napi::Number::New(env, static_cast<double>(event.id)));
      object.Set("remote", addressText(event.address));
      object.Set("listener", Napi::Number::New(env, event.listener));
      object.Set("malformed", event.text);
      break;
    case Event::Kind::kWanted:
      object.Set("type", "wanted");
      object.Set("listener", Napi::Number::New(env, event.listener));
      object.Set("name", event.text);
      break;
    case Event::Kind::kForward:
      object.Set("type", "forward");
      object.Set("source", keyValue(env, event.key));
      object.Set("destination", keyValue(env, event.destination));
      object.Set("packet", Napi::Buffer<uint8_t>::Copy(env, event.packet.data(), event.packet.size()));
      break;
    case Event::Kind::kTraffic:
      object.Set("type", "traffic");
      object.Set("ticket", Napi::Number::New(env, event.ticket));
      object.Set("records", Napi::Buffer<uint8_t>::Copy(env, event.packet.data(), event.packet.size()));
      object.Set("last", Napi::Boolean::New(env, event.last));
      break;
    case Event::Kind::kClients:
      object.Set("type", "clients");
      object.Set("ticket", Napi::Number::New(env, event.ticket));
      object.Set("shard", Napi::Number::New(env, event.shard));
      object.Set("records", Napi::Buffer<uint8_t>::Copy(env, event.packet.data(), event.packet.size()));
      object.Set("connections", Napi::Number::New(env, static_cast<double>(event.connections)));
      object.Set("keys", Napi::Number::New(env, static_cast<double>(event.keys)));
      object.Set("behind", Napi::Number::New(env, static_cast<double>(event.behind)));
      break;
    case Event::Kind::kLabelsFull:
      object.Set("type", "labels-full");
      object.Set("label", event.text);
      break;
    case Event::Kind::kCheck: {
      object.Set("type", "check");
      object.Set("ticket", Napi::Number::New(env, event.ticket));
      object.Set("shard", Napi::Number::New(env, event.shard));
      const auto violations = Napi::Array::New(env, event.violations.size());
      for (uint32_t i = 0; i < event.violations.size(); ++i) violations.Set(i, event.violations[i]);
      object.Set("violations", violations);
      break;
    }
  }
  return object;
}

}  // namespace

std::shared_ptr<EventPump> EventPump::start(Napi::Env env, std::shared_ptr<RelayCore> core,
                                            const Napi::Function& callback) {
  std::shared_ptr<EventPump> pump(new EventPump(std::move(core), callback));
  uv_async_init(loopOf(env), &pump->async_,
                [](uv_async_t* handle) { static_cast<EventPump*>(static_cast<LoopUser*>(handle->data))->pump(); });
  pump->own(&pump->async_);
  // The shards' workers keep the process alive, not the news of them.
  uv_unref(reinterpret_cast<uv_handle_t*>(&pump->async_));
  // Under the core's lock, which onClose takes too: never sent after the handle is closed.
  pump->core_->setEventSink([p = pump.get()] { uv_async_send(&p->async_); });
  return pump;
}

void EventPump::onClose() {
  core_->setEventSink(nullptr);
  callback_.Reset();
}

void EventPump::pump() {
  const std::vector<Event> events = core_->takeEvents();
  if (events.empty() || callback_.IsEmpty()) return;
  const Napi::Env env = callback_.Env();
  const Napi::HandleScope scope(env);
  const auto list = Napi::Array::New(env, events.size());
  for (uint32_t i = 0; i < events.size(); ++i) list.Set(i, eventValue(env, events[i]));
  callBack(callback_, {list});
}

}  // namespace derplane

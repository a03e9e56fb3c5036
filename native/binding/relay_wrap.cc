#include "relay_wrap.h"

#include <fcntl.h>
#include <sys/random.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "../io/address.h"
#include "event_pump.h"
#include "tls_wraps.h"

namespace derplane {
namespace {

uint64_t idOf(const Napi::Value& value) { return static_cast<uint64_t>(numberOf(value)); }

std::string errnoName(int error) { return uv_err_name(uv_translate_sys_error(error)); }

}  // namespace

Napi::Function RelayWrap::define(Napi::Env env) {
  return DefineClass(env, "Relay",
                     {InstanceAccessor("id", &RelayWrap::getId, nullptr),
                      InstanceAccessor("handshakes", &RelayWrap::getHandshakes, nullptr),
                      InstanceMethod("setAcceptLimit", &RelayWrap::setAcceptLimit),
                      InstanceMethod("takeAccept", &RelayWrap::takeAccept),
                      InstanceAccessor("refusedByLimit", &RelayWrap::getRefusedByLimit, nullptr),
                      InstanceAccessor("refused", &RelayWrap::getRefused, nullptr),
                      InstanceAccessor("refusedBytes", &RelayWrap::getRefusedBytes, nullptr),
                      InstanceAccessor("lostEvents", &RelayWrap::getLostEvents, nullptr),
                      InstanceAccessor("evicted", &RelayWrap::getEvicted, nullptr),
                      InstanceAccessor("mute", &RelayWrap::getMute, nullptr),
                      InstanceAccessor("waitingHandshakes", &RelayWrap::getWaitingHandshakes, nullptr),
                      InstanceAccessor("accepts", &RelayWrap::getAccepts, nullptr),
                      InstanceAccessor("tlsCounts", &RelayWrap::getTlsCounts, nullptr),
                      InstanceAccessor("labels", &RelayWrap::getLabels, nullptr),
                      InstanceAccessor("labelsRefused", &RelayWrap::getLabelsRefused, nullptr),
                      InstanceAccessor("failures", &RelayWrap::getFailures, nullptr),
                      InstanceMethod("listen", &RelayWrap::listen),
                      InstanceMethod("importFd", &RelayWrap::importFd),
                      InstanceMethod("socketPair", &RelayWrap::socketPair),
                      InstanceMethod("detach", &RelayWrap::detach),
                      InstanceMethod("discard", &RelayWrap::discard),
                      InstanceMethod("setMeshKey", &RelayWrap::setMeshKey),
                      InstanceMethod("startHandshake", &RelayWrap::startHandshake),
                      InstanceMethod("endHandshakes", &RelayWrap::endHandshakes),
                      InstanceMethod("shardOf", &RelayWrap::shardOf),
                      InstanceMethod("closePeer", &RelayWrap::closePeer),
                      InstanceMethod("setForwarder", &RelayWrap::setForwarder),
                      InstanceMethod("consistencyCheck", &RelayWrap::consistencyCheck),
                      InstanceMethod("traffic", &RelayWrap::traffic),
                      InstanceMethod("clients", &RelayWrap::clients),
                      InstanceMethod("setLogClients", &RelayWrap::setLogClients),
                      InstanceMethod("setClientEvents", &RelayWrap::setClientEvents),
                      InstanceMethod("endLink", &RelayWrap::endLink),
                      InstanceMethod("adoptLink", &RelayWrap::adoptLink),
                      InstanceMethod("setRateLimit", &RelayWrap::setRateLimit),
                      InstanceMethod("drain", &RelayWrap::drain),
                      InstanceMethod("close", &RelayWrap::close)});
}

RelayWrap::RelayWrap(const Napi::CallbackInfo& info) : Napi::ObjectWrap<RelayWrap>(info) {
  const Napi::Env env = info.Env();
  if (info.Length() < 1 || !info[0].IsObject()) {
    throwCode(env, "ERR_DERP_BAD_OPTION", "Relay needs a configuration object");
    return;
  }
  const auto options = info[0].As<Napi::Object>();
  RelayConfig config;
  if (!readConfig(options, config) || !readMemory(options, config)) return;
  core_ = RelayCore::create(std::move(config));
  pump_tie_ = LoopTie::make(env);
  pump_ = EventPump::start(env, core_, options.Get("onEvents").As<Napi::Function>());
  pump_tie_->bind(pump_);
}

// The shards hold the core too: their environments end before ours, so only the object goes here.
RelayWrap::~RelayWrap() = default;

bool RelayWrap::readConfig(const Napi::Object& options, RelayConfig& config) {
  const Napi::Env env = options.Env();
  if (!keyOf(options.Get("publicKey"), config.public_key)) return false;
  if (!options.Get("onEvents").IsFunction()) {
    throwCode(env, "ERR_DERP_BAD_OPTION", "onEvents must be a function");
    return false;
  }
  const double shards = numberField(options, "shards");
  if (shards < 1 || shards > kMaxShards) {
    throwCode(env, "ERR_DERP_BAD_OPTION", "shards must be 1 to " + std::to_string(kMaxShards));
    return false;
  }
  RouterConfig& router = config.router;
  router.public_key = config.public_key;
  if (::getrandom(&router.seed, sizeof router.seed, 0) != static_cast<ssize_t>(sizeof router.seed)) {
    throwCode(env, errnoName(errno), "no random bytes for the hash seed");
    return false;
  }
  router.shards = static_cast<uint32_t>(shards);
  router.queue_depth = static_cast<uint32_t>(numberField(options, "queueDepth"));
  router.max_queue_bytes = static_cast<uint64_t>(numberField(options, "maxQueueBytes"));
  router.keepalive_ms = static_cast<uint64_t>(numberField(options, "keepAliveInterval"));
  router.duplicates =
      boolField(options, "disableFighters") ? DuplicatePolicy::kDisableFighters : DuplicatePolicy::kLastWriterActive;
  config.write_timeout_ms = static_cast<uint64_t>(numberField(options, "writeTimeout"));
  config.mesh_write_timeout_ms = static_cast<uint64_t>(numberField(options, "meshWriteTimeout"));
  config.rtt_interval_ms = static_cast<uint64_t>(numberField(options, "rttInterval"));
  config.handshakes.max = static_cast<int64_t>(numberField(options, "maxHandshakes"));
  config.handshakes.max_bytes = static_cast<size_t>(numberField(options, "maxHandshakeBytes"));
  config.handshakes.max_per_source = static_cast<uint32_t>(numberField(options, "maxHandshakesPerSource"));
  config.first_byte_timeout_ms = static_cast<uint64_t>(numberField(options, "firstByteTimeout"));
  return true;
}

bool RelayWrap::readMemory(const Napi::Object& options, RelayConfig& config) {
  const Napi::Env env = options.Env();
  const auto counters = options.Get("counters").As<Napi::Array>();
  const auto rings = options.Get("rings").As<Napi::Array>();
  const uint32_t shards = config.router.shards;
  if (!counters.IsArray() || !rings.IsArray() || counters.Length() != shards || rings.Length() != shards * shards) {
    throwCode(env, "ERR_DERP_BAD_OPTION", "counters must hold one array per shard and rings one per ordered pair");
    return false;
  }
  for (uint32_t i = 0; i < shards; ++i) {
    size_t size = 0;
    const Napi::Value value = counters.Get(i);
    const uint8_t* bytes = bytesOf(value, size);
    if (bytes == nullptr || size != kCounterCount * sizeof(int64_t)) {
      throwCode(env, "ERR_DERP_BAD_OPTION",
                "a counters array must be a BigInt64Array of " + std::to_string(kCounterCount));
      return false;
    }
    config.counters.push_back(reinterpret_cast<int64_t*>(const_cast<uint8_t*>(bytes)));
    memory_.push_back(Napi::Persistent(value.As<Napi::Object>()));
  }
  for (uint32_t i = 0; i < shards * shards; ++i) {
    if (i / shards == i % shards) {
      config.rings.push_back(RingMemory{});
      continue;
    }
    size_t size = 0;
    const Napi::Value value = rings.Get(i);
    const uint8_t* bytes = bytesOf(value, size);
    const RingMemory memory = bytes == nullptr ? RingMemory{} : RingMemory::in(const_cast<uint8_t*>(bytes), size);
    if (memory.shared == nullptr) {
      throwCode(env, "ERR_DERP_BAD_OPTION",
                "a ring must be a Uint8Array of at least " + std::to_string(kMinRingBytes + kRingOverhead) + " bytes");
      return false;
    }
    config.rings.push_back(memory);
    memory_.push_back(Napi::Persistent(value.As<Napi::Object>()));
  }
  return true;
}

Napi::Value RelayWrap::getId(const Napi::CallbackInfo& info) { return Napi::Number::New(info.Env(), core_->id); }

bool RelayWrap::ready(Napi::Env env) {
  if (!core_->closed.load(std::memory_order_relaxed)) return true;
  throwCode(env, "ERR_DERP_CLOSED", "the relay is closed");
  return false;
}

// setAcceptLimit(perSecond, burst)
Napi::Value RelayWrap::setAcceptLimit(const Napi::CallbackInfo& info) {
  if (ready(info.Env())) core_->accept_limit.set(numberOf(info[0]), numberOf(info[1]));
  return info.Env().Undefined();
}

// Whether a listener of JavaScript's may accept one more connection.
Napi::Value RelayWrap::takeAccept(const Napi::CallbackInfo& info) {
  return Napi::Boolean::New(info.Env(), core_ == nullptr || core_->accept_limit.take(uv_now(loopOf(info.Env()))));
}

Napi::Value RelayWrap::listen(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!ready(env)) return env.Undefined();
  const auto options = info[0].As<Napi::Object>();
  ListenOptions listen_options;
  listen_options.host = textOf(options.Get("host"));
  listen_options.port = static_cast<int>(numberField(options, "port"));
  if (options.Has("fd")) listen_options.fd = static_cast<int>(numberField(options, "fd"));
  listen_options.keepalive_ms = static_cast<uint32_t>(numberField(options, "tcpKeepaliveTime"));
  listen_options.tag = static_cast<uint32_t>(numberField(options, "tag"));
  if (const Napi::Value tls = options.Get("tls"); !tls.IsUndefined()) {
    listen_options.tls = TlsServerWrap::from(tls);
    if (listen_options.tls == nullptr) {
      throwCode(env, "ERR_DERP_BAD_OPTION", "tls is no TlsServer of this thread");
      return env.Undefined();
    }
  }
  const auto proxies = options.Get("proxies").As<Napi::Array>();
  for (uint32_t i = 0; i < proxies.Length(); i++) {
    if (listen_options.proxies.add(textOf(proxies.Get(i)))) continue;
    throwCode(env, "ERR_DERP_BAD_OPTION", "proxies holds an invalid address range");
    return env.Undefined();
  }
  listen_options.user_timeout_ms = static_cast<uint32_t>(numberField(options, "tcpUserTimeout"));
  auto callback = std::make_shared<Napi::FunctionReference>(Napi::Persistent(info[1].As<Napi::Function>()));
  const auto tie = LoopTie::make(env);
  int error = 0;
  const auto listener = Listener::open(
      loopOf(env), core_, listen_options,
      [callback](const char* trouble) {
        const Napi::Env cb_env = callback->Env();
        const Napi::HandleScope scope(cb_env);
        callBack(*callback, {Napi::String::New(cb_env, trouble)});
      },
      error);
  if (listener == nullptr) {
    tie->release();
    throwCode(env, errnoName(error), std::strerror(error));
    return env.Undefined();
  }
  tie->bind(listener);
  listeners_.push_back(listener);
  const auto result = Napi::Object::New(env);
  result.Set("port", Napi::Number::New(env, listener->port()));
  result.Set("address", Napi::String::New(env, listener->address()));
  result.Set("close", Napi::Function::New(env, [weak = std::weak_ptr(listener), tie](const Napi::CallbackInfo&) {
               // The tie holds it until it is closed; then its descriptor goes, however long JavaScript keeps this
               // function.
               if (const auto open = weak.lock()) open->close([tie] { tie->release(); });
             }));
  return result;
}

double RelayWrap::addConnection(Napi::Env env, Fd fd, const Napi::Value& head, const Napi::Value& remote, bool exempt,
                                std::unique_ptr<TlsSession> session) {
  Address address = remote.IsString() ? parseAddress(remote.As<Napi::String>().Utf8Value()) : Address{};
  if (address.port == 0) address = peerAddress(fd.get());
  if (!exempt && !core_->budget.admit(address)) {
    throwCode(env, "budget", "too many handshakes in progress");
    return 0;
  }
  auto connection = std::make_unique<Connection>(core_, std::move(fd), address);
  connection->notify = true;
  connection->exempt = exempt;
  connection->spoke = true;  // who brought it has dealt with its client
  size_t size = 0;
  const uint8_t* bytes = bytesOf(head, size);
  if (size > 0 && !connection->append(bytes, size)) {
    throwCode(env, "budget", "handshakes in progress hold too many bytes");
    return 0;
  }
  if (session != nullptr) {
    connection->output = session->takeOutput();
    session->setOutput(&connection->output);
    connection->tls = std::move(session);
  }
  return static_cast<double>(ConnectionTable::instance().add(std::move(connection)));
}

Napi::Value RelayWrap::importFd(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!ready(env)) return env.Undefined();
  Fd fd(::fcntl(static_cast<int>(numberOf(info[0])), F_DUPFD_CLOEXEC, 0));
  int type = 0;
  socklen_t size = sizeof type;
  if (!fd.valid() || ::getsockopt(fd.get(), SOL_SOCKET, SO_TYPE, &type, &size) != 0 || type != SOCK_STREAM) {
    throwCode(env, "ENOTSOCK", "the descriptor is not a stream socket");
    return env.Undefined();
  }
  ::fcntl(fd.get(), F_SETFL, ::fcntl(fd.get(), F_GETFL) | O_NONBLOCK);
  return Napi::Number::New(
      env, addConnection(env, std::move(fd), info[1], info[2], boolOf(info[3]), TlsSessionWrap::takeFrom(info[4])));
}

Napi::Value RelayWrap::socketPair(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!ready(env)) return env.Undefined();
  int ends[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0) {
    throwCode(env, errnoName(errno), std::string("socketpair: ") + std::strerror(errno));
    return env.Undefined();
  }
  Fd ours(ends[0]);
  Fd theirs(ends[1]);
  const double id = addConnection(env, std::move(ours), info[0], info[1], boolOf(info[2]), nullptr);
  if (id == 0) return env.Undefined();
  const auto result = Napi::Object::New(env);
  result.Set("id", Napi::Number::New(env, id));
  result.Set("fd", Napi::Number::New(env, theirs.release()));
  return result;
}

Napi::Value RelayWrap::detach(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const auto connection = ConnectionTable::instance().take(idOf(info[0]));
  if (connection == nullptr) {
    throwCode(env, "discarded", "the connection is gone");
    return env.Undefined();
  }
  const auto result = Napi::Object::New(env);
  result.Set("bytes", Napi::Buffer<uint8_t>::Copy(env, connection->bytes(), connection->size()));
  result.Set("fd", Napi::Number::New(env, connection->fd.release()));
  if (connection->tls != nullptr) {
    // There is one kind of session.
    std::unique_ptr<TlsSession> session(static_cast<TlsSession*>(connection->tls.release()));
    session->keepOutput(std::move(connection->output));
    result.Set("tls", TlsSessionWrap::make(env, std::move(session)));
  }
  return result;
}

Napi::Value RelayWrap::discard(const Napi::CallbackInfo& info) {
  ConnectionTable::instance().discard(idOf(info[0]));
  return info.Env().Undefined();
}

Napi::Value RelayWrap::setMeshKey(const Napi::CallbackInfo& info) {
  core_->setMeshKey(textOf(info[0]));
  return info.Env().Undefined();
}

Napi::Value RelayWrap::startHandshake(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  if (!ready(env)) return env.Undefined();
  const uint64_t id = idOf(info[0]);
  Connection* connection = ConnectionTable::instance().borrow(id);
  if (connection == nullptr) {
    throwCode(env, "discarded", "the connection is gone");
    return env.Undefined();
  }
  connection->not_ideal = boolOf(info[2]);
  ConnectionTable::instance().giveBack(id);
  core_->startHandshake({id, static_cast<HandshakeStart>(static_cast<uint32_t>(numberOf(info[1])))});
  return env.Undefined();
}

Napi::Value RelayWrap::endHandshakes(const Napi::CallbackInfo& info) {
  core_->endHandshakes();
  return info.Env().Undefined();
}

Napi::Value RelayWrap::shardOf(const Napi::CallbackInfo& info) {
  Key key;
  if (!keyOf(info[0], key)) return info.Env().Undefined();
  return Napi::Number::New(info.Env(), core_->shardOf(key));
}

Napi::Value RelayWrap::closePeer(const Napi::CallbackInfo& info) {
  Mail mail{.kind = Mail::Kind::kClosePeer};
  if (!keyOf(info[0], mail.key)) return info.Env().Undefined();
  core_->slots[core_->shardOf(mail.key)]->post(std::move(mail));
  return info.Env().Undefined();
}

Napi::Value RelayWrap::setForwarder(const Napi::CallbackInfo& info) {
  Mail mail{.kind = Mail::Kind::kSetForwarder};
  if (!keyOf(info[0], mail.key)) return info.Env().Undefined();
  mail.on = boolOf(info[1]);
  core_->slots[core_->shardOf(mail.key)]->post(std::move(mail));
  return info.Env().Undefined();
}

Napi::Value RelayWrap::consistencyCheck(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const uint32_t ticket = static_cast<uint32_t>(numberOf(info[0]));
  const bool on = boolOf(info[1]);
  for (const auto& slot : core_->slots) {
    if (slot->post(Mail{.kind = Mail::Kind::kCheck, .on = on, .ticket = ticket})) continue;
    throwCode(env, "ERR_DERP_CLOSED", "a shard has ended");
    return env.Undefined();
  }
  return env.Undefined();
}

Napi::Value RelayWrap::traffic(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  const uint32_t ticket = static_cast<uint32_t>(numberOf(info[0]));
  for (const auto& slot : core_->slots) {
    if (slot->post(Mail{.kind = Mail::Kind::kTraffic, .ticket = ticket})) continue;
    throwCode(env, "ERR_DERP_CLOSED", "a shard has ended");
    return env.Undefined();
  }
  return env.Undefined();
}

Napi::Value RelayWrap::setLogClients(const Napi::CallbackInfo& info) {
  core_->log_clients.store(boolOf(info[0]), std::memory_order_relaxed);
  return info.Env().Undefined();
}

Napi::Value RelayWrap::setClientEvents(const Napi::CallbackInfo& info) {
  core_->client_events.store(boolOf(info[0]), std::memory_order_relaxed);
  return info.Env().Undefined();
}

Napi::Value RelayWrap::endLink(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Mail mail{.kind = Mail::Kind::kEndLink};
  Key key;
  if (!keyOf(info[1], key)) return env.Undefined();
  mail.adoption.id = idOf(info[0]);
  core_->slots[core_->shardOf(key)]->post(std::move(mail));  // a shard that has ended has no links
  return env.Undefined();
}

Napi::Value RelayWrap::adoptLink(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  Mail mail{.kind = Mail::Kind::kAdoptLink};
  if (!ready(env) || !keyOf(info[1], mail.adoption.key)) return env.Undefined();
  size_t size = 0;
  const uint8_t* first = bytesOf(info[2], size);
  mail.bytes.assign(first, first + size);
  mail.adoption.id = idOf(info[0]);
  mail.connection = ConnectionTable::instance().take(mail.adoption.id);
  if (mail.connection == nullptr) {
    throwCode(env, "discarded", "the connection is gone");
    return env.Undefined();
  }
  mail.adoption.address = mail.connection->remote;
  mail.adoption.notify = true;
  ShardSlot& slot = *core_->slots[core_->shardOf(mail.adoption.key)];
  if (!slot.post(std::move(mail))) throwCode(env, "ERR_DERP_CLOSED", "the shard has ended");
  return env.Undefined();
}

Napi::Value RelayWrap::setRateLimit(const Napi::CallbackInfo& info) {
  const auto rate = static_cast<uint64_t>(numberOf(info[0]));
  const auto burst = static_cast<uint64_t>(numberOf(info[1]));
  for (const auto& slot : core_->slots) slot->post({.kind = Mail::Kind::kRateLimit, .rate = rate, .burst = burst});
  return info.Env().Undefined();
}

Napi::Value RelayWrap::drain(const Napi::CallbackInfo& info) {
  for (const auto& slot : core_->slots) {
    slot->post({.kind = Mail::Kind::kDrain,
                .rate = static_cast<uint64_t>(numberOf(info[0])),
                .reconnect_ms = static_cast<uint32_t>(numberOf(info[1])),
                .try_ms = static_cast<uint32_t>(numberOf(info[2]))});
  }
  return info.Env().Undefined();
}

Napi::Value RelayWrap::close(const Napi::CallbackInfo& info) {
  if (core_->closed.exchange(true)) return info.Env().Undefined();
  ConnectionTable::instance().discardAll(core_.get());
  pump_->close([tie = pump_tie_] { tie->release(); });
  memory_.clear();  // the shards have ended; the rings need not wait until this object is collected
  return info.Env().Undefined();
}

}  // namespace derplane

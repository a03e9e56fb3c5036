// A doubly linked list through a member of its elements: no extra memory, O(1) to add and to take out.
#pragma once

namespace derplane {

template <typename T>
struct Links {
  T* prev = nullptr;
  T* next = nullptr;
};

template <typename T, Links<T> T::* kLinks>
class LinkedList {
 public:
  T* front() const { return front_; }
  bool empty() const { return front_ == nullptr; }

  // The element behind one in this list, or null.
  static T* next(const T& element) { return (element.*kLinks).next; }

  void pushFront(T& element) {
    element.*kLinks = {nullptr, front_};
    (front_ != nullptr ? (front_->*kLinks).prev : back_) = &element;
    front_ = &element;
  }

  void pushBack(T& element) {
    element.*kLinks = {back_, nullptr};
    (back_ != nullptr ? (back_->*kLinks).next : front_) = &element;
    back_ = &element;
  }

  // The element must be in this list.
  void remove(T& element) {
    Links<T>& links = element.*kLinks;
    (links.prev != nullptr ? (links.prev->*kLinks).next : front_) = links.next;
    (links.next != nullptr ? (links.next->*kLinks).prev : back_) = links.prev;
    links = {};
  }

 private:
  T* front_ = nullptr;
  T* back_ = nullptr;
};

}  // namespace derplane

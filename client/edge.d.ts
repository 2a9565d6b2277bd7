/** An event of an {@link EdgeSource}. */
export interface EdgeEvent extends MessageEvent<string> {
  /** The topics of the source that brought it; none if it was sent to its visitor, or comes from the edge. */
  readonly topics: string[];
}

export interface EdgeSourceInit {
  /** Where the event streams are; `/events` of this origin, or as the edge that serves this file has it. */
  url?: string;
  /** Begins after the event with this id, such as one that the page was rendered with. */
  lastEventId?: string;
}

/** What an `error` event says. */
export interface EdgeError extends Event {
  /** The status of the answer that closed it for good; 204 when its topics are finished. */
  readonly status?: number;
}

/** The edge's own events have names of their own, and JSON as `data`. */
export interface EdgeSourceEventMap {
  open: Event;
  error: EdgeError;
  message: EdgeEvent;
  /** `{ reason, missed, topics, from?, to? }`: events are missing. */
  'edge-gap': EdgeEvent;
  /** `{ replayed, missed }`: what was missed has been sent. */
  'edge-sync': EdgeEvent;
  /** `{ reason, seconds? }`: its token ends soon, or it cannot be let in just now. */
  'edge-auth': EdgeEvent;
}

/** An `EventSource` of some topics, whose stream all tabs of the browser share. */
export declare class EdgeSource extends EventTarget {
  static readonly CONNECTING: 0;
  static readonly OPEN: 1;
  static readonly CLOSED: 2;
  constructor(topics: string | string[], init?: EdgeSourceInit);
  readonly topics: string[];
  readonly url: string;
  readonly readyState: 0 | 1 | 2;
  /** The last id that any of the tabs has seen: where all of them stand. */
  readonly lastEventId: string;
  onopen: ((event: Event) => unknown) | null;
  onmessage: ((event: EdgeEvent) => unknown) | null;
  onerror: ((event: EdgeError) => unknown) | null;
  close(): void;
  addEventListener<K extends keyof EdgeSourceEventMap>(
    type: K, listener: (event: EdgeSourceEventMap[K]) => unknown, options?: boolean | AddEventListenerOptions): void;
  addEventListener(
    type: string, listener: (event: EdgeEvent) => unknown, options?: boolean | AddEventListenerOptions): void;
}

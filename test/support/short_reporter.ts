import { DefaultReporter, type TestModule } from 'vitest/node';

/** For terminals: the live summary of vitest's own reporter, and of finished files only those that failed. */
export default class ShortReporter extends DefaultReporter {
  constructor() {
    super({ silent: 'passed-only' });
  }

  protected override printTestModule(testModule: TestModule): void {
    if (testModule.state() === 'failed') super.printTestModule(testModule);
  }
}

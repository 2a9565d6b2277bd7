<?php
// The portal's app in PHP: login, a page, publishing, and a stream of its own.
// PHP_CLI_SERVER_WORKERS=4 php -S 127.0.0.1:3000 app.php
$path = parse_url($_SERVER['REQUEST_URI'], PHP_URL_PATH);
$control = getenv('CONTROL') ?: 'http://127.0.0.1:7070';
session_name('sid');
session_start(['cookie_httponly' => true, 'cookie_samesite' => 'Lax']);
$user = $_SESSION['user'] ?? null;
if ($path === '/login') {
    session_regenerate_id(true); // Who logs in is another than who came.
    $_SESSION['user'] = $_POST['user'];
}
session_write_close(); // Streams are not to keep the session's other requests waiting.

if ($path === '/') {
    echo str_replace('USER', htmlspecialchars($user ?? 'nobody yet'), file_get_contents(__DIR__ . '/page.html'));
} elseif ($path === '/login') {
    header('Location: /', true, 303);
} elseif ($path === '/session') {
    if ($user !== null) header("Remote-User: $user"); // Else nobody in particular, who has a session all the same.
} elseif ($path === '/publish' && $user !== null) {
    $event = json_encode(['topic' => 'game/7', 'event' => $_POST['event'], 'data' => $_POST['data']]);
    $http = ['method' => 'POST', 'header' => 'Content-Type: application/json', 'content' => $event];
    file_get_contents("$control/publish", false, stream_context_create(['http' => $http]));
    header('Location: /', true, 303);
} elseif ($path === '/ticker') {
    header('Content-Type: text/event-stream');
    $tick = fn () => (int) (microtime(true) * 10);
    $next = (int) ($_SERVER['HTTP_LAST_EVENT_ID'] ?? $tick()) + 1;
    while (!connection_aborted()) {
        for (; $next <= $tick(); $next++) echo "id: $next\ndata: $next\n\n";
        while (ob_get_level() > 0) ob_end_flush();
        flush();
        usleep(20000);
    }
} else {
    http_response_code(404);
}

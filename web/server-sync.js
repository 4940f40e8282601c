// The element <server-sync>, for any page: one tag brings it,
//   <script type="module" src="https://serversync.example.com/server-sync.js"></script>
// with or without type="module". What it needs is loaded from where this came.
{
	const here = document.currentScript?.src; // null in a module, whose imports are relative to itself
	import(here ? new URL('assets/element.js', here).href : './assets/element.js').catch((error) => {
		console.error('<server-sync> could not be loaded. Is serversync reachable from this page?', error);
	});
}
